//! Files that are still to be loaded, in the order of their coming, in as few bytes as it takes.
//!
//! A master sends a listing as fast as it can, a million files in seconds, and holds in memory what we do not read;
//! so we read, and keep what is missing here. Names in a listing resemble the one before: of each only the rest is
//! kept, about 30 bytes a file. Pure; what it may hold at most is the business of its owner.

use serde::{Deserialize, Serialize};

/// A file with blocks that lack copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MissingFile {
    /// Alluxio path.
    pub(super) path: String,
    /// Where the UFS has it.
    pub(super) ufs_path: String,
    pub(super) mount_id: i64,
    pub(super) blocks: Vec<MissingBlock>,
}

/// A block that lacks copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MissingBlock {
    pub(super) id: i64,
    /// Bytes.
    pub(super) length: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Live workers that hold a copy.
    pub(super) holders: Vec<i64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// Bytes at the front that were taken already.
    taken: usize,
    files: usize,
    pushed: Names,
    popped: Names,
}

#[derive(Debug, Default)]
struct Names {
    path: String,
    ufs_path: String,
}

/// A file as it is kept: of each name how many bytes it shares with the name before, and the rest.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    path: (usize, &'a str),
    #[serde(borrow)]
    ufs_path: (usize, &'a str),
    mount_id: i64,
    blocks: Vec<MissingBlock>,
}

impl Backlog {
    /// Bytes in use.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() - self.taken
    }

    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Adds a file at the end.
    pub(super) fn push(&mut self, file: MissingFile) {
        let entry = Entry {
            path: rest(&self.pushed.path, &file.path),
            ufs_path: rest(&self.pushed.ufs_path, &file.ufs_path),
            mount_id: file.mount_id,
            blocks: file.blocks,
        };
        // Fails for want of memory alone, which Rust does not report either.
        if let Ok(kept) = postcard::to_allocvec(&entry) {
            self.bytes.extend_from_slice(&kept);
            self.files += 1;
            self.pushed = Names { path: file.path, ufs_path: file.ufs_path };
        }
    }

    /// Takes the first file.
    pub(super) fn pop(&mut self) -> Option<MissingFile> {
        let kept = self.bytes.get(self.taken..).filter(|kept| !kept.is_empty())?;
        let (entry, left) = postcard::take_from_bytes::<Entry<'_>>(kept).ok()?;
        let length = kept.len() - left.len();
        restore(&mut self.popped.path, entry.path);
        restore(&mut self.popped.ufs_path, entry.ufs_path);
        let file = MissingFile {
            path: self.popped.path.clone(),
            ufs_path: self.popped.ufs_path.clone(),
            mount_id: entry.mount_id,
            blocks: entry.blocks,
        };
        self.taken += length;
        self.files -= 1;
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        Some(file)
    }
}

/// How much of `name` is as in `before`, and what follows.
fn rest<'a>(before: &str, name: &'a str) -> (usize, &'a str) {
    let same = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let shared = name.floor_char_boundary(same);
    (shared, &name[shared..])
}

fn restore(name: &mut String, (shared, rest): (usize, &str)) {
    name.truncate(shared);
    name.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file() -> impl Strategy<Value = MissingFile> {
        let block = (any::<i64>(), any::<u64>(), any::<u64>(), proptest::collection::vec(any::<i64>(), 0..3))
            .prop_map(|(id, length, offset, holders)| MissingBlock { id, length, offset, holders });
        let names = ("(/[aä漢f]{0,3}){1,4}", "(s3://)?(/[aä漢f]{0,3}){1,4}");
        (names, any::<i64>(), proptest::collection::vec(block, 0..4))
            .prop_map(|((path, ufs_path), mount_id, blocks)| MissingFile { path, ufs_path, mount_id, blocks })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            files in proptest::collection::vec((file(), 0_usize..3), 0..40)
        ) {
            let mut backlog = Backlog::default();
            let mut out = Vec::new();
            for (file, pops) in &files {
                backlog.push(file.clone());
                out.extend((0..*pops).filter_map(|_| backlog.pop()));
            }
            out.extend(std::iter::from_fn(|| backlog.pop()));
            prop_assert_eq!(out, files.into_iter().map(|(file, _)| file).collect::<Vec<_>>());
            prop_assert!(backlog.is_empty());
            prop_assert_eq!(backlog.bytes(), 0);
        }
    }

    #[test]
    fn a_million_files_take_little() {
        let mut backlog = Backlog::default();
        for number in 0..10_000_i64 {
            let block =
                MissingBlock { id: (5_000_000 + number) << 24, length: 1, offset: 0, holders: vec![] };
            backlog.push(MissingFile {
                path: format!("/data/train/images/f{number:07}"),
                ufs_path: format!("s3://bucket/a/long/prefix/data/train/images/f{number:07}"),
                mount_id: 1,
                blocks: vec![block],
            });
        }
        assert!(backlog.bytes() / 10_000 < 30, "{} bytes for 10,000 files", backlog.bytes());
    }
}
