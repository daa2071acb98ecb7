//! Files of which copies are open: being made, or waiting for it.

use std::collections::HashMap;

/// By the order of their coming.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: HashMap<u64, OpenFile>,
    next: u64,
    /// Of all of them.
    copies: usize,
}

#[derive(Debug)]
pub(super) struct OpenFile {
    /// Alluxio path.
    pub(super) path: String,
    copies: usize,
    failed: bool,
    /// By block: workers that hold a copy, are going to, or failed to.
    workers: HashMap<i64, Vec<i64>>,
}

impl OpenFiles {
    /// Copies that are open.
    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    /// Opens `copies` of a file; `holders`: who holds each of its blocks already. Gives the file's number.
    pub(super) fn open(&mut self, path: String, copies: usize, holders: HashMap<i64, Vec<i64>>) -> u64 {
        let number = self.next;
        self.next += 1;
        if copies > 0 {
            self.copies += copies;
            self.files.insert(number, OpenFile { path, copies, failed: false, workers: holders });
        }
        number
    }

    /// Alluxio path.
    pub(super) fn path(&self, number: u64) -> Option<&str> {
        self.files.get(&number).map(|file| file.path.as_str())
    }

    /// Workers that hold a copy of `block`, are going to, or failed to.
    pub(super) fn workers(&mut self, number: u64, block: i64) -> Option<&mut Vec<i64>> {
        self.files.get_mut(&number).map(|file| file.workers.entry(block).or_default())
    }

    /// A copy was made. True: it was the last of its file, and all were made.
    pub(super) fn made(&mut self, number: u64) -> bool {
        self.close(number).is_some_and(|file| !file.failed)
    }

    /// A copy will not be made.
    pub(super) fn give_up(&mut self, number: u64) -> Option<String> {
        let file = self.files.get_mut(&number)?;
        let first = !std::mem::replace(&mut file.failed, true);
        let path = first.then(|| file.path.clone());
        self.close(number);
        path
    }

    fn close(&mut self, number: u64) -> Option<OpenFile> {
        let file = self.files.get_mut(&number)?;
        self.copies -= 1;
        file.copies -= 1;
        if file.copies == 0 { self.files.remove(&number) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_with_its_last_copy_and_never_when_one_was_given_up() {
        let mut files = OpenFiles::default();
        let whole = files.open("/a".to_owned(), 2, HashMap::from([(7, vec![1])]));
        let torn = files.open("/b".to_owned(), 3, HashMap::new());
        assert_eq!(files.workers(whole, 7), Some(&mut vec![1]));
        assert_eq!((files.made(whole), files.made(whole)), (false, true));
        assert_eq!(files.workers(whole, 7), None, "it is forgotten");
        assert_eq!(files.give_up(torn).as_deref(), Some("/b"));
        assert_eq!(files.give_up(torn), None, "it was named before");
        assert!(!files.made(torn));
        assert_eq!(files.copies(), 0);
    }
}
