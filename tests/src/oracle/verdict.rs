//! Whether a load may say LOADED, by block files on the workers' disks.

use super::{Disks, Tree};
use anyhow::Result;
use std::collections::BTreeSet;

/// Blocks that are named where many are missing.
const SHOWN: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every block is there, on workers that live, and is what was to be loaded.
    True,
    /// Copies are missing that were on a worker which died while the verification went on.
    DiedMeanwhile,
    False(String),
}

impl Tree<'_> {
    /// Of the disks as they were when LOADED was heard: every block of all `files` files with data must be on
    /// `replicas` of the workers that were alive, and be what the under file system holds. Workers that `died` since
    /// the verification began may have held what is missing.
    pub fn judge(
        &self,
        disks: &Disks,
        files: usize,
        replicas: usize,
        alive: &BTreeSet<usize>,
        died: &BTreeSet<usize>,
    ) -> Result<Verdict> {
        let copies = self.copies_in(disks, alive)?;
        if copies.files.len() != files {
            return Ok(Verdict::False(format!("{} of {files} files are listed", copies.files.len())));
        }
        let missing = copies.missing(replicas);
        let Some(first) = missing.first() else {
            return Ok(match self.compare_contents(&copies) {
                Ok(()) => Verdict::True,
                Err(error) => Verdict::False(format!("{error:#}")),
            });
        };
        if self.copies_in(disks, &alive.union(died).copied().collect())?.missing(replicas).is_empty() {
            return Ok(Verdict::DiedMeanwhile);
        }
        let lacking = || copies.blocks().filter(|block| block.workers.len() < replicas);
        let some: Vec<_> = lacking().take(SHOWN).collect();
        Ok(Verdict::False(format!(
            "{} of {files} files, {} blocks, lack copies on the workers {alive:?}, such as {first}, {some:?}",
            missing.len(),
            lacking().count()
        )))
    }
}
