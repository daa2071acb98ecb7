//! Data of one shape: written once, and linked into a fresh directory for each run.

use anyhow::{Context, Result};
use preload_tests::Data;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Links that one inode can have on ext4, with room to spare.
const LINKS: usize = 60_000;

/// Folders, files in each, bytes of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) folders: usize,
    pub(super) files: usize,
    pub(super) size: u64,
}

/// Its files, once for all runs, where Alluxio does not see them. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct Base {
    tree: Tree,
    directory: PathBuf,
    /// Files that were really written.
    written: usize,
}

impl Tree {
    pub(super) const fn new(folders: usize, files: usize, size: u64) -> Self {
        Self { folders, files, size }
    }

    pub(super) fn count(self) -> usize {
        self.folders * self.files
    }

    pub(super) fn bytes(self) -> u64 {
        self.count() as u64 * self.size
    }

    /// Writes its files into `directory`, of which `written` are different ones.
    pub(super) fn write(self, directory: PathBuf, written: usize) -> Result<Base> {
        let base = Base { tree: self, written: written.max(self.count().div_ceil(LINKS)), directory };
        let data = Data::create(base.directory.clone(), "/".to_owned())?;
        (0..base.written).try_for_each(|number| data.file(&number.to_string(), self.size).map(drop))?;
        Ok(base)
    }
}

/// `1,000 files of 1 MB`.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size {
            1 => "one byte".to_owned(),
            size if size >= 1_000_000 => format!("{} MB", size / 1_000_000),
            size => format!("{} kB", size / 1_000),
        };
        write!(f, "{} files of {size}", thousands(self.count()))
    }
}

/// `10,000`.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Base {
    pub(super) fn tree(&self) -> Tree {
        self.tree
    }

    /// Makes them appear below `target`, in folders unless there is only one.
    pub(super) fn link(&self, target: &Path) -> Result<()> {
        for folder in 0..self.tree.folders {
            let folder_path = match self.tree.folders {
                1 => target.to_owned(),
                _ => target.join(format!("d{folder:04}")),
            };
            fs::create_dir_all(&folder_path).with_context(|| format!("make {}", folder_path.display()))?;
            for file in 0..self.tree.files {
                let number = (folder * self.tree.files + file) % self.written;
                let link = folder_path.join(format!("f{file:06}"));
                fs::hard_link(self.directory.join(number.to_string()), &link)
                    .with_context(|| format!("link {}", link.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // The sandbox goes too, later.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
