//! A real Alluxio for many runs, and the data that they load.
//!
//! Invariant: what was loaded is taken away in batches, long before the cache is full.

use crate::cluster::{Cluster, MIB, Options};
use crate::data::Data;
use crate::wait;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Workers of the cluster: with one dead, two copies can still be made.
pub const WORKERS: usize = 3;
/// The most files that a run loads.
const FILES: usize = 400;
/// Of a worker's cache: a batch with two copies of everything fits into the workers that are left.
const QUOTA: u64 = 3072 * MIB;
/// More than what the sidecar calls a small block: such blocks take another RPC.
const BLOCK: u64 = 5 * MIB;
/// What may stay: blocks that a worker had not told the master of when it was killed stay for good.
const LEFT: u64 = 32 * MIB;
/// For the blocks of a batch to go.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    base: PathBuf,
    batch: Option<Data>,
    runs: usize,
    /// Between two cleanings, which cost a JVM.
    batch_runs: usize,
}

/// Three workers, and blocks of 5 MiB.
pub async fn start_cluster() -> Result<Cluster> {
    let options = Options { workers: WORKERS, worker_quota: QUOTA, block_size: BLOCK, ..Options::default() };
    Cluster::start(options).await
}

impl<'a> Stage<'a> {
    /// Makes the contents that all runs share. What so many runs have loaded must fit into the cache, in two copies
    /// and without one worker.
    pub fn set(cluster: &'a Cluster, batch_runs: usize) -> Result<Self> {
        let base = cluster.sandbox().folder("base")?;
        let data = Data::create(base.clone(), "/".to_owned())?;
        for number in 0..FILES {
            data.file(&number.to_string(), size(number))?;
        }
        Ok(Self { cluster, base, batch: None, runs: 0, batch_runs })
    }

    /// Takes away what earlier runs have loaded, now and then.
    pub async fn begin_run(&mut self) -> Result<()> {
        if self.runs.is_multiple_of(self.batch_runs) {
            self.clear().await?;
        }
        self.runs += 1;
        Ok(())
    }

    /// A fresh directory with so many files, 400 at most; contents are shared, blocks are not.
    pub fn data(&mut self, files: usize) -> Result<Data> {
        let batch = match &self.batch {
            Some(batch) => batch,
            None => self.batch.insert(self.cluster.data("batch")?),
        };
        let data = batch.below(&format!("run-{}", self.cluster.sandbox().number()))?;
        for number in 0..files.min(FILES) {
            let folder = data.ufs().join(format!("d{}", number % 4));
            fs::create_dir_all(&folder).context("make a folder")?;
            let link = folder.join(format!("f{number:03}"));
            fs::hard_link(self.base.join(number.to_string()), link).context("link a file")?;
        }
        Ok(data)
    }

    /// Blocks which stay behind are no error: there is room for them.
    async fn clear(&mut self) -> Result<()> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let remove = ["fs", "rm", "-R", "--alluxioOnly", batch.path()];
        self.cluster.alluxio(&remove).await?.success().context("clear the cache")?;
        fs::remove_dir_all(batch.ufs()).context("remove the data")?;
        let empty = wait::until("the workers to be empty", REMOVAL_LIMIT, async || {
            Ok((self.cluster.oracle().bytes_on_disk()? <= LEFT).then_some(()))
        });
        if let Err(error) = empty.await {
            eprintln!("{error:#}; {} bytes", self.cluster.oracle().bytes_on_disk()?);
        }
        Ok(())
    }
}

/// Mostly small, some of 100 kB, some of several blocks, large ones and a last one that is small.
fn size(number: usize) -> u64 {
    match number {
        _ if number % 40 == 7 => 1_500_000,
        _ if number % 40 == 27 => 6_500_000,
        _ if number % 100 == 42 => 11_000_000,
        _ if number % 4 == 1 => 100_000,
        _ => 2_000 + 100 * (number as u64 % 140),
    }
}
