//! The workers' Load RPC caches what is left of a file that was cut, and calls it the block. No such stump may stay,
//! whatever happens to the load, and LOADED may not be said of it.

use super::{KIB, NO_ARGUMENTS, natively};
use crate::outcome::{failed, failures, half_way, loaded, shown, wish};
use crate::support::{cancel, changes, job_service, rough, watch_until};
use alluxio_preload_api::v1::load::{Reason, State};
use anyhow::{Context, Result, ensure};
use preload_tests::oracle::Tree;
use preload_tests::{Cluster, Data, MIB, Role, Sidecar, wait};
use std::fs;
use std::time::Duration;

const CUT: [&str; 2] = ["f00003", "f00031"];

/// Blocks on the workers that are shorter than Alluxio says.
fn stumps(cluster: &Cluster, tree: &Tree<'_>) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    for block in tree.copies()?.blocks() {
        for worker in 1..=cluster.options().workers {
            let file = cluster.worker_directory(Role::Worker(worker)).join(block.id.to_string());
            if fs::metadata(file).is_ok_and(|file| file.len() < block.length) {
                found.push(block.id);
            }
        }
    }
    Ok(found)
}

pub(super) fn assert_none(cluster: &Cluster, tree: &Tree<'_>) -> Result<()> {
    let found = stumps(cluster, tree)?;
    ensure!(found.is_empty(), "blocks {found:?} are shorter than Alluxio says");
    Ok(())
}

/// Small files that Alluxio knows, of which two have been cut since. They are the first to be loaded.
pub(crate) async fn data<'a>(
    cluster: &'a Cluster,
    name: &str,
    files: usize,
) -> Result<(Data, Tree<'a>, Vec<String>)> {
    let data = cluster.data(name)?;
    data.files(files, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    for name in CUT {
        fs::write(data.ufs().join(name), "cut")?;
    }
    let bad = CUT.map(|name| format!("{}/{name}", data.path())).to_vec();
    Ok((data, tree, bad))
}

/// The load fails, names these files alone, and leaves nothing too short.
pub(crate) async fn assert_named(
    cluster: &Cluster,
    sidecar: &Sidecar<'_>,
    id: &str,
    tree: &Tree<'_>,
    bad: &[String],
) -> Result<()> {
    let load = failed(sidecar, id, Reason::Incomplete).await?;
    let named: Vec<_> = failures(sidecar, id).await?.into_iter().map(|failure| failure.path).collect();
    ensure!(named == bad, "{named:?} are named; {}", shown(&load));
    assert_none(cluster, tree)?;
    assert_eq!(tree.copies()?.missing(1), bad, "the rest is loaded");
    Ok(())
}

/// Asking leaves no read open, which would cost memory here and there: a worker does not let go of a block that
/// somebody reads.
#[tokio::test]
async fn a_block_that_was_asked_is_let_go() -> Result<()> {
    const WITHIN: Duration = Duration::from_secs(20);
    let cluster = rough().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("asked")?;
    data.files(1, 16 * KIB)?;
    sidecar.start_load(natively("a", data.path(), 1, |_| ())?).await?;
    loaded(&sidecar, "a").await?;
    let client = job_service(cluster);
    let file = client.status(&format!("{}/f00000", data.path())).await?;
    let block = file.blocks.first().context("a block")?;
    let workers = client.workers().await?;
    let worker = workers.iter().find(|worker| block.workers.contains(&worker.id)).context("its worker")?;
    for _ in 0..3 {
        ensure!(client.has_last_byte(&worker.address, (block.id, block.length), WITHIN).await?);
    }
    client.remove_block(&worker.address, block.id, WITHIN).await?;
    let asked = client.has_last_byte(&worker.address, (block.id, block.length), WITHIN).await;
    ensure!(matches!(asked, Err(alluxio_client::Error::NotFound { .. })), "{asked:?}");
    sidecar.assert_no_errors()
}

/// So that the sums of used bytes do not add up.
#[tokio::test]
async fn while_others_cache_at_the_same_time() -> Result<()> {
    let cluster = rough().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let (data, tree, bad) = data(cluster, "stumps-beside", 400).await?;
    let other = cluster.data("beside")?;
    other.files(1500, 16 * KIB)?;
    cluster.oracle().tree(other.path()).await?;
    sidecar
        .start_load(natively("other", other.path(), 1, |spec| spec.max_bytes_per_second = 4 * MIB)?)
        .await?;
    watch_until(&sidecar, "other", |load| load.state() == State::Loading).await?;
    sidecar.start_load(natively("a", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    assert_named(cluster, &sidecar, "a", &tree, &bad).await?;
    let beside = sidecar.get_load("other").await?;
    ensure!(beside.state() == State::Loading, "it cached nothing meanwhile: {}", shown(&beside));
    loaded(&sidecar, "other").await?;
    cluster.oracle().assert_loaded(other.path(), 1).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn of_a_load_that_was_cancelled() -> Result<()> {
    left_by(true).await
}

#[tokio::test]
async fn of_a_load_that_took_too_long() -> Result<()> {
    left_by(false).await
}

/// A load ends before it could prove anything; what it left fools no later load, not even after a restart.
async fn left_by(cancelled: bool) -> Result<()> {
    let cluster = rough().await?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let (data, tree, bad) = data(cluster, "stumps-left", 300).await?;
    let wish = natively("first", data.path(), 1, |spec| {
        spec.max_bytes_per_second = MIB;
        if !cancelled {
            spec.timeout = Some(prost_types::Duration { seconds: 3, nanos: 0 });
        }
    });
    sidecar.start_load(wish?).await?;
    half_way(&sidecar, "first", &tree, 1).await?;
    wait::until("stumps", wait::LIMIT, async || Ok((stumps(cluster, &tree)?.len() == 2).then_some(())))
        .await?;
    if cancelled {
        cancel(&sidecar, "first").await?;
        sidecar.in_state("first", State::Cancelled).await?;
    } else {
        failed(&sidecar, "first", Reason::TimedOut).await?;
    }
    let first = sidecar.get_load("first").await?;
    ensure!(stumps(cluster, &tree)?.len() == 2, "nothing too short is left, which proves nothing");
    sidecar.kill9().await?;
    sidecar.restart().await?;
    sidecar.start_load(natively("second", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    assert_named(cluster, &sidecar, "second", &tree, &bad).await?;
    assert_eq!(sidecar.get_load("first").await?, first, "a load that has ended stays as it is");
    sidecar.assert_no_errors()
}

/// The workers hold everything, and what is too short is found when all has been counted: the engine is what the spec
/// says nevertheless.
#[tokio::test]
async fn of_a_load_that_was_cancelled_before_the_proof() -> Result<()> {
    let cluster = rough().await?;
    let (data, tree, bad) = data(cluster, "stumps-auto", 60).await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(natively("first", data.path(), 1, |_| ())?).await?;
    last_block(cluster, &tree).await?;
    cancel(&sidecar, "first").await?;
    sidecar.in_state("first", State::Cancelled).await?;
    ensure!(stumps(cluster, &tree)?.len() == 2, "nothing too short is left, which proves nothing");
    sidecar.start_load(wish("second", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    assert_named(cluster, &sidecar, "second", &tree, &bad).await?;
    let load = sidecar.get_load("second").await?;
    assert_eq!(load.engine_reason, "it loads what distributedLoad left undone", "{}", shown(&load));
    sidecar.assert_no_errors()
}

/// Until all but what was cut is on the disks, and that too, too short.
async fn last_block(cluster: &Cluster, tree: &Tree<'_>) -> Result<()> {
    wait::until("the last block", wait::LIMIT, async || {
        let all = stumps(cluster, tree)?.len() == 2 && tree.copies()?.missing(1).len() == 2;
        Ok(all.then_some(()))
    })
    .await
}

/// Between the last acknowledgement and the proof.
#[tokio::test]
async fn of_a_sidecar_that_was_killed_before_the_proof() -> Result<()> {
    let cluster = rough().await?;
    let (data, tree, bad) = data(cluster, "stumps-killed", 60).await?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(natively("a", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    last_block(cluster, &tree).await?;
    sidecar.kill9().await?;
    ensure!(stumps(cluster, &tree)?.len() == 2, "nothing too short is left, which proves nothing");
    sidecar.restart().await?;
    assert_named(cluster, &sidecar, "a", &tree, &bad).await?;
    let load = sidecar.get_load("a").await?;
    assert_eq!(load.attempt, 1, "{}", shown(&load));
    ensure!(changes(&load).contains(&(State::Loading, State::Waiting)), "too late: {}", shown(&load));
    sidecar.assert_no_errors()
}
