//! What the native engine makes of a load that a kill cut short: only what is missing is asked for.

use crate::outcome::{begin_with, half_way, loaded, shown};
use crate::support::rough;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Result, ensure};
use preload_tests::oracle::Tree;
use preload_tests::{Cluster, MIB, Role, Sidecar};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

/// Inode, and seconds and nanoseconds of the last change.
type FileIdentity = (u64, i64, i64);

/// Each whole block on the disks by worker and id, and which file it is: one that is cached again is another.
fn block_files(cluster: &Cluster, tree: &Tree<'_>) -> Result<BTreeMap<(usize, i64), FileIdentity>> {
    let mut found = BTreeMap::new();
    for block in tree.copies()?.blocks() {
        for worker in &block.workers {
            let file = cluster.worker_directory(Role::Worker(*worker)).join(block.id.to_string());
            let file = fs::metadata(file)?;
            found.insert((*worker, block.id), (file.ino(), file.mtime(), file.mtime_nsec()));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn small_files_are_not_cached_twice() -> Result<()> {
    // Two workers with four batches of 50 blocks each.
    nothing_is_cached_twice("resume-small", 2500, 16 * KIB, 400).await
}

#[tokio::test]
async fn large_files_are_not_cached_twice() -> Result<()> {
    // Two workers with 16 requests each.
    nothing_is_cached_twice("resume-large", 40, 12 * MIB, 32).await
}

/// `in_flight`: blocks that the workers may still have been making when the sidecar was killed; another worker may have been
/// asked for those by then.
async fn nothing_is_cached_twice(name: &str, files: usize, size: u64, in_flight: usize) -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data(name)?;
    data.files(files, size)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin_with(&sidecar, Engine::Native, "a", data.path(), 1).await?;
    half_way(&sidecar, "a", &tree, 1).await?;
    sidecar.kill9().await?;
    let before = block_files(cluster, &tree)?;
    sidecar.restart().await?;
    let load = loaded(&sidecar, "a").await?;
    assert_eq!((load.engine(), load.attempt), (Engine::Native, 1), "{}", shown(&load));
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    let after = block_files(cluster, &tree)?;
    let again: Vec<_> = before.iter().filter(|(block, file)| after.get(block) != Some(file)).collect();
    ensure!(again.is_empty(), "{} of {} blocks were cached again: {again:?}", again.len(), before.len());
    let copies = tree.copies()?;
    let twice = copies.blocks().filter(|block| block.workers.len() > 1).count();
    ensure!(twice <= in_flight, "{twice} blocks have a second copy; {} were there", before.len());
    sidecar.assert_no_errors()
}
