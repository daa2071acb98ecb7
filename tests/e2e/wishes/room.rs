//! Loads that there is no room for, or only that of others.

use crate::outcome::{
    PATIENCE, begin_with, failed, loaded, loadings, shown, visited, wait_at_most, waits, wish,
};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, MIB, Options, Sidecar, wait};

const NO_ARGUMENTS: [&str; 0] = [];

#[tokio::test]
async fn data_larger_than_the_cache_evict_nothing() -> Result<()> {
    larger_than_the_cache(Engine::DistributedLoad).await
}

#[tokio::test]
async fn data_larger_than_the_cache_evict_nothing_natively() -> Result<()> {
    larger_than_the_cache(Engine::Native).await
}

async fn larger_than_the_cache(engine: Engine) -> Result<()> {
    // 64 MiB in all.
    let options = Options { worker_quota: 32 * MIB, block_size: MIB, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let others = cluster.data("others")?;
    others.files(8, MIB)?;
    begin_with(&sidecar, engine, "others", others.path(), 2).await?;
    loaded(&sidecar, "others").await?;
    cluster.oracle().assert_loaded(others.path(), 2).await?;

    let large = cluster.data("large")?;
    large.files(5, 16 * MIB)?;
    for (id, allow_evict, kind) in [("free", false, "free"), ("evict", true, "in all")] {
        let wish = wish(id, large.path(), 1, |spec| {
            spec.set_engine(engine);
            spec.allow_evict = allow_evict;
            wait_at_most(spec, 2);
        });
        sidecar.start_load(wish?).await?;
        let load = failed(&sidecar, id, Reason::GateTimedOut).await?;
        ensure!(visited(&load).contains(&(State::Waiting, Reason::NotEnoughRoom)), "{}", shown(&load));
        assert_eq!((loadings(&load), load.attempt), (0, 0), "{}", shown(&load));
        assert!(
            load.message.contains("80.0 MiB are needed") && load.message.contains(kind),
            "{}",
            load.message
        );
        let progress = load.progress.context("progress")?;
        assert_eq!((progress.bytes_total, progress.bytes_cached, progress.totals_exact), (80 * MIB, 0, true));
    }
    assert_eq!(cluster.oracle().copies(large.path()).await?.most(), 0);
    cluster.oracle().assert_loaded(others.path(), 2).await?;

    // 48 MiB are free: enough for any one of these, for no two of them.
    let mut rivals = vec!["a", "b", "c"];
    for id in &rivals {
        let data = cluster.data(id)?;
        data.files(30, MIB)?;
        begin_with(&sidecar, engine, id, data.path(), 1).await?;
    }
    let first = one_of_is_loaded(&sidecar, &rivals).await?;
    rivals.retain(|id| *id != first.id);
    for id in &rivals {
        let waiting = waits(&sidecar, id, Reason::NotEnoughRoom).await?;
        assert_eq!(loadings(&waiting), 0, "its room was promised to {}: {}", first.id, shown(&waiting));
    }
    cluster.oracle().assert_loaded(path_of(&first)?, 1).await?;
    // Room that becomes free is taken by one of them.
    cluster.alluxio(&["fs", "free", path_of(&first)?]).await?.success()?;
    let second = one_of_is_loaded(&sidecar, &rivals).await?;
    cluster.oracle().assert_loaded(path_of(&second)?, 1).await?;
    cluster.oracle().assert_loaded(others.path(), 2).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn what_may_evict_takes_the_room_of_others() -> Result<()> {
    may_evict(Engine::DistributedLoad).await
}

#[tokio::test]
async fn what_may_evict_takes_the_room_of_others_natively() -> Result<()> {
    may_evict(Engine::Native).await
}

async fn may_evict(engine: Engine) -> Result<()> {
    // 64 MiB in all.
    let options = Options { worker_quota: 32 * MIB, block_size: MIB, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let others = cluster.data("others")?;
    others.files(40, MIB)?;
    begin_with(&sidecar, engine, "others", others.path(), 1).await?;
    loaded(&sidecar, "others").await?;

    let data = cluster.data("may-evict")?;
    data.files(40, MIB)?;
    let wish = wish("may", data.path(), 1, |spec| {
        spec.set_engine(engine);
        spec.allow_evict = true;
    });
    sidecar.start_load(wish?).await?;
    loaded(&sidecar, "may").await?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    let left = cluster.oracle().copies(others.path()).await?;
    ensure!(left.missing(1).len() >= 16, "nothing was evicted: 80 MiB in 64 MiB?");
    sidecar.assert_no_errors()
}

async fn one_of_is_loaded(sidecar: &Sidecar<'_>, ids: &[&str]) -> Result<Load> {
    wait::until(&format!("one of {ids:?} to be loaded"), PATIENCE, async || {
        for id in ids {
            let load = sidecar.get_load(id).await?;
            if load.state() == State::Loaded {
                return Ok(Some(load));
            }
        }
        Ok(None)
    })
    .await
}

fn path_of(load: &Load) -> Result<&str> {
    Ok(&load.spec.as_ref().context("a load without a wish")?.path)
}
