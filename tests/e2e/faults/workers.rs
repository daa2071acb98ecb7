//! A worker dies or falls silent half way through a load.

use crate::outcome::{assert_honest, begin_with, half_way, loaded, shown, waits, wish};
use alluxio_preload_api::v1::load::Reason;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, MIB, Options, Role, Sidecar};

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];
const VICTIM: Role = Role::Worker(2);

/// So many small files that there is time to disturb.
fn files(engine: Engine) -> usize {
    if engine == Engine::Native { 2000 } else { 400 }
}

#[tokio::test]
async fn a_worker_killed_half_way() -> Result<()> {
    killed_half_way(Engine::DistributedLoad).await
}

#[tokio::test]
async fn a_worker_killed_half_way_through_a_native_load() -> Result<()> {
    killed_half_way(Engine::Native).await
}

async fn killed_half_way(engine: Engine) -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let data = cluster.data("worker")?;
    data.files(files(engine), 32 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;

    begin_with(&sidecar, engine, "one", data.path(), 1).await?;
    half_way(&sidecar, "one", &tree, 1).await?;
    cluster.kill(VICTIM, Signal::SIGKILL).await?;
    let one = loaded(&sidecar, "one").await?;
    // What the dead worker held is loaded again.
    let attempts = if engine == Engine::Native { 2 } else { 1 };
    assert_eq!((one.engine(), one.attempt), (Engine::Native, attempts), "{}", shown(&one));
    assert_honest(&cluster, &sidecar, &one).await?;

    let more = cluster.data("two")?;
    more.files(files(engine), 16 * KIB)?;
    let tree = cluster.oracle().tree(more.path()).await?;
    begin_with(&sidecar, engine, "two", more.path(), 2).await?;
    let two = waits(&sidecar, "two", Reason::WorkersMissing).await?;
    ensure!(two.message.contains("1 of 2 workers are live"), "{}", shown(&two));
    cluster.start_role(VICTIM).await?;
    half_way(&sidecar, "two", &tree, 2).await?;
    cluster.kill(VICTIM, Signal::SIGKILL).await?;
    waits(&sidecar, "two", Reason::WorkersMissing).await?;
    cluster.start_role(VICTIM).await?;
    assert_honest(&cluster, &sidecar, &loaded(&sidecar, "two").await?).await?;
    sidecar.assert_no_errors()
}

/// Large blocks are asked for one by one, by another RPC than small ones.
#[tokio::test]
async fn a_worker_killed_half_way_through_large_blocks() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let data = cluster.data("large")?;
    data.files(16, 12 * MIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    // Slow enough to be disturbed.
    let slowly = wish("one", data.path(), 1, |spec| {
        spec.set_engine(Engine::Native);
        spec.max_bytes_per_second = 20 * MIB;
    });
    sidecar.start_load(slowly?).await?;
    half_way(&sidecar, "one", &tree, 1).await?;
    cluster.kill(VICTIM, Signal::SIGKILL).await?;
    let one = loaded(&sidecar, "one").await?;
    assert_eq!(one.engine(), Engine::Native, "{}", shown(&one));
    assert_honest(&cluster, &sidecar, &one).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_worker_that_falls_silent_half_way() -> Result<()> {
    silent_half_way(Engine::DistributedLoad).await
}

#[tokio::test]
async fn a_worker_that_falls_silent_half_way_through_a_native_load() -> Result<()> {
    silent_half_way(Engine::Native).await
}

/// It is stopped: its connections stay, and nothing is answered.
async fn silent_half_way(engine: Engine) -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let sidecar = Sidecar::start(&cluster, &["--stall-after", "10s"]).await?;
    for replicas in [1, 2] {
        let id = format!("silent-{replicas}");
        let data = cluster.data(&id)?;
        data.files(files(engine), 16 * KIB)?;
        let tree = cluster.oracle().tree(data.path()).await?;
        begin_with(&sidecar, engine, &id, data.path(), replicas).await?;
        half_way(&sidecar, &id, &tree, replicas as usize).await?;
        cluster.signal(VICTIM, Signal::SIGSTOP)?;
        if replicas == 1 {
            let load = loaded(&sidecar, &id).await?;
            let copies = tree.copies()?;
            let elsewhere = copies.blocks().filter(|block| !block.workers.contains(&1)).count();
            ensure!(elsewhere == 0, "{elsewhere} blocks are on a silent worker alone: {}", shown(&load));
        } else {
            waits(&sidecar, &id, Reason::WorkersMissing).await?;
        }
        cluster.signal(VICTIM, Signal::SIGCONT)?;
        assert_honest(&cluster, &sidecar, &loaded(&sidecar, &id).await?).await?;
    }
    sidecar.assert_no_errors()
}
