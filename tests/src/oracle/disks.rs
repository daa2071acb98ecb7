//! Block files on the disks of workers, at one moment.

use crate::cluster::{Cluster, Role};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Block ids, with the numbers of the workers that hold each and the bytes they hold.
#[derive(Debug, Clone, Default)]
pub struct Disks(BTreeMap<i64, Vec<(usize, u64)>>);

impl Disks {
    pub(super) fn of(cluster: &Cluster, workers: &BTreeSet<usize>) -> Result<Self> {
        let mut blocks: BTreeMap<i64, Vec<(usize, u64)>> = BTreeMap::new();
        for &worker in workers {
            let directory = cluster.worker_directory(Role::Worker(worker));
            let entries =
                fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
            for entry in entries {
                let entry = entry?;
                // Anything else is a folder for blocks that are being written; a block may go any time.
                let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let Ok(file) = entry.metadata() else { continue };
                blocks.entry(id).or_default().push((worker, file.len()));
            }
        }
        Ok(Self(blocks))
    }

    /// Workers that hold the block whole.
    pub(super) fn holders(&self, block: i64, length: u64) -> impl Iterator<Item = usize> {
        let found = self.0.get(&block).map(Vec::as_slice).unwrap_or_default();
        found.iter().filter(move |(_, size)| *size == length).map(|(worker, _)| *worker)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().flatten().map(|(_, length)| length).sum()
    }
}
