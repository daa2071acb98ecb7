//! The native engine: no JVM, no job service, every block placed and proven.

mod files;
pub(crate) mod stumps;

use crate::outcome::{loaded, loadings, shown, visited, wish};
use crate::support::status_of;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{LoadSpec, StartLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, MIB, Options, Sidecar, load as request, shared};
use std::time::SystemTime;
use tonic::Code;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

/// StartLoad by the native engine.
pub(crate) fn natively(
    id: &str,
    path: &str,
    replicas: u32,
    change: impl FnOnce(&mut LoadSpec),
) -> Result<StartLoadRequest> {
    wish(id, path, replicas, |spec| {
        spec.set_engine(Engine::Native);
        change(spec);
    })
}

#[tokio::test]
async fn small_and_large_files_are_spread_evenly() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("native")?;
    data.files(400, 16 * KIB)?;
    let large = data.below("large")?;
    large.files(4, 40 * MIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;

    sidecar.start_load(natively("once", data.path(), 1, |_| {})?).await?;
    let once = loaded(&sidecar, "once").await?;
    assert_eq!((once.engine(), once.attempt, loadings(&once)), (Engine::Native, 1, 1), "{}", shown(&once));
    assert_eq!(once.engine_reason, "the spec asks for it");
    let copies = cluster.oracle().copies(data.path()).await?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    assert_eq!(copies.most(), 1, "a second copy was not asked for");
    let held =
        |worker| copies.blocks().filter(|b| b.workers.contains(&worker)).map(|b| b.length).sum::<u64>();
    let (most, least) = (held(1).max(held(2)), held(1).min(held(2)));
    ensure!(most - least <= 16 * MIB, "more than a block apart: {least} and {most} bytes");

    sidecar.start_load(natively("twice", data.path(), 2, |_| {})?).await?;
    let twice = loaded(&sidecar, "twice").await?;
    assert_eq!((twice.attempt, loadings(&twice)), (1, 1), "{}", shown(&twice));
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    let progress = twice.progress.context("progress")?;
    assert_eq!((progress.bytes_total, progress.bytes_cached), (2 * copies.length(), 2 * copies.length()));

    // Nothing is missing: nothing is asked for.
    sidecar.start_load(natively("again", data.path(), 2, |_| {})?).await?;
    let again = loaded(&sidecar, "again").await?;
    assert_eq!((again.attempt, loadings(&again)), (0, 0), "{}", shown(&again));
    sidecar.assert_quiet()
}

#[tokio::test]
async fn neither_a_command_nor_a_job_service_is_needed() -> Result<()> {
    let cluster = Cluster::start(Options { job_service: false, ..Options::default() }).await?;
    let data = cluster.data("alone")?;
    data.tree(16 * KIB)?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(request("auto", data.path(), 2)).await?;
    let load = loaded(&sidecar, "auto").await?;
    assert_eq!((load.engine(), load.attempt), (Engine::Native, 1), "{}", shown(&load));
    assert_eq!(load.engine_reason, "no job service with live workers answers");
    assert!(!visited(&load).contains(&(State::Waiting, Reason::NoJobWorker)));
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    sidecar.assert_quiet()
}

/// A limit cannot be kept by the command, and nothing comes in faster than it says.
#[tokio::test]
async fn the_bandwidth_is_limited() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("native-limited")?;
    data.files(64, 256 * KIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let limit = 4 * MIB;
    let request = wish("limited", data.path(), 1, |spec| spec.max_bytes_per_second = limit)?;
    sidecar.start_load(request).await?;
    let load = loaded(&sidecar, "limited").await?;
    assert_eq!(load.engine_reason, "the spec limits the bandwidth, which distributedLoad cannot");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    let at = |state: State| {
        let change = load.transitions.iter().find(|change| change.to() == state).context("no such change")?;
        SystemTime::try_from(change.time.context("time")?).context("before the epoch")
    };
    let took = at(State::Verifying)?.duration_since(at(State::Loading)?)?;
    // The last batch of 4 MiB passes when those before are paid for.
    ensure!(took.as_secs_f64() >= (16 * MIB - 5 * MIB) as f64 / limit as f64, "16 MiB came in {took:?}");

    let command = wish("command", data.path(), 1, |spec| {
        spec.set_engine(Engine::DistributedLoad);
        spec.max_bytes_per_second = limit;
    });
    let status = status_of(sidecar.start_load(command?).await)?;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    sidecar.assert_quiet()
}
