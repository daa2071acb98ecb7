//! The master breaks, comes back, or becomes another.

use crate::outcome::{assert_honest, begin_with, half_way, loaded, shown, waits};
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Load, WatchLoadRequest};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, Options, Role, Sidecar, wait};
use tonic::Streaming;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

#[tokio::test]
async fn the_master_comes_and_goes_and_becomes_another() -> Result<()> {
    comes_and_goes(Engine::DistributedLoad).await
}

#[tokio::test]
async fn the_master_comes_and_goes_and_becomes_another_in_a_native_load() -> Result<()> {
    comes_and_goes(Engine::Native).await
}

async fn comes_and_goes(engine: Engine) -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let mut sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    let first = cluster.data("first")?;
    first.files(5, KIB)?;
    begin_with(&sidecar, engine, "first", first.path(), 1).await?;
    let waiting = waits(&sidecar, "first", Reason::AlluxioUnreachable).await?;
    assert!(waiting.message.contains(&cluster.master_address()), "{}", shown(&waiting));
    cluster.start_role(Role::Master).await?;
    loaded(&sidecar, "first").await?;
    cluster.oracle().assert_loaded(first.path(), 1).await?;
    let following = follow(&sidecar, "first").await?;

    let data = cluster.data("half-way")?;
    data.files(if engine == Engine::Native { 3000 } else { 300 }, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    begin_with(&sidecar, engine, "half-way", data.path(), 1).await?;
    half_way(&sidecar, "half-way", &tree, 1).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    cluster.start_role(Role::Master).await?;
    let load = loaded(&sidecar, "half-way").await?;
    assert_honest(&cluster, &sidecar, &load).await?;
    let still = sidecar.get_load("first").await?;
    assert_eq!(still.state(), State::Loaded, "the same journal is the same cluster: {}", shown(&still));

    become_another(&cluster).await?;
    let last = last_of(following).await?;
    assert_eq!((last.state(), last.reason()), (State::Stale, Reason::ClusterChanged), "{}", shown(&last));
    assert_ne!(last.end_time, None);

    // And while the sidecar was not there to see it.
    let second = cluster.data("second")?;
    second.files(5, KIB)?;
    begin_with(&sidecar, engine, "second", second.path(), 1).await?;
    let here = loaded(&sidecar, "second").await?;
    assert_ne!(here.cluster, last.cluster);
    cluster.oracle().assert_loaded(second.path(), 1).await?;
    sidecar.terminate().await?;
    become_another(&cluster).await?;
    sidecar.restart().await?;
    let stale = sidecar.reaches("second", |load| load.state() == State::Stale).await?;
    assert_eq!(stale.reason(), Reason::ClusterChanged);
    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_eq!(sidecar.get_load("second").await?, stale, "what was withdrawn stays withdrawn");
    sidecar.assert_no_errors()
}

/// A new journal at the same address, as when the master's pod is made again without its volume. The job master
/// lives in that pod too; one that stays may go on for minutes with a client that the new master does not let in.
async fn become_another(cluster: &Cluster) -> Result<()> {
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    cluster.format().await?;
    cluster.start_role(Role::Master).await?;
    cluster.start_role(Role::JobMaster).await
}

/// A watch that stays beyond LOADED; its first message is read.
async fn follow(sidecar: &Sidecar<'_>, id: &str) -> Result<Streaming<Load>> {
    let request = WatchLoadRequest { load_id: id.to_owned(), after_sequence: 0, follow: true };
    let mut stream = sidecar.client()?.watch_load(request).await.context("WatchLoad")?.into_inner();
    let first = stream.message().await?.context("a first message")?;
    assert_eq!(first.state(), State::Loaded);
    Ok(stream)
}

/// Reads a watch to its end.
async fn last_of(mut stream: Streaming<Load>) -> Result<Load> {
    let read = async {
        let mut last = None;
        while let Some(load) = stream.message().await? {
            last = Some(load);
        }
        anyhow::Ok(last)
    };
    let last = tokio::time::timeout(wait::LIMIT, read).await.context("the watch goes on")??;
    last.context("the watch ended without a message")
}
