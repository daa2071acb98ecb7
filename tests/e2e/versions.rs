//! Alluxios that differ from the default one: without the command, without authentication, without a launcher.

use crate::native::{natively, stumps};
use crate::outcome::{assert_honest, begin_with, failed, half_way, loaded, loadings, shown};
use crate::reverify::{assert_evicted, judged};
use crate::support::free;
use alluxio_preload_api::v1::load::Reason;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Authentication, Cluster, MIB, Options, Role, Setup, Sidecar, prerequisites, shared};
use tokio::sync::OnceCell;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

/// The newest release, which has no such command.
async fn without_the_command() -> Result<&'static Cluster> {
    static NEW: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    let options = Options {
        version: prerequisites::ALLUXIO_WITHOUT_DISTRIBUTED_LOAD,
        job_service: false,
        worker_quota: 1024 * MIB,
        ..Options::default()
    };
    let cluster = NEW.get_or_init(async || Cluster::start(options).await.map_err(|e| format!("{e:#}"))).await;
    cluster.as_ref().map_err(|error| anyhow::anyhow!("the newest Alluxio did not start: {error}"))
}

#[tokio::test]
async fn without_distributed_load_everything_is_loaded_natively() -> Result<()> {
    let cluster = without_the_command().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("new")?;
    data.files(5, 16 * KIB)?;
    begin_with(&sidecar, Engine::DistributedLoad, "command", data.path(), 1).await?;
    let load = failed(&sidecar, "command", Reason::CommandMissing).await?;
    for part in ["no distributedLoad", "2.9.3", "NATIVE"] {
        ensure!(load.message.contains(part), "{part} is not named: {}", shown(&load));
    }
    assert_eq!((loadings(&load), load.attempt), (0, 0), "{}", shown(&load));
    assert_eq!(cluster.oracle().copies(data.path()).await?.most(), 0);

    for (engine, why) in [
        (Engine::Unspecified, "this Alluxio has no distributedLoad"),
        (Engine::Native, "the spec asks for it"),
    ] {
        for replicas in [1, 2] {
            let id = format!("{}-{replicas}", engine.as_str_name().to_lowercase().replace('_', "-"));
            let data = cluster.data(&id)?;
            data.tree(16 * KIB)?;
            data.below("large")?.files(2, 20 * MIB)?;
            begin_with(&sidecar, engine, &id, data.path(), replicas).await?;
            let load = loaded(&sidecar, &id).await?;
            assert_eq!(
                (load.engine(), load.attempt, loadings(&load)),
                (Engine::Native, 1, 1),
                "{}",
                shown(&load)
            );
            assert_eq!(load.engine_reason, why);
            cluster.oracle().assert_loaded(data.path(), replicas as usize).await?;
        }
    }
    // What is cached already needs no command.
    begin_with(&sidecar, Engine::Native, "new", data.path(), 1).await?;
    loaded(&sidecar, "new").await?;
    begin_with(&sidecar, Engine::DistributedLoad, "cached", data.path(), 1).await?;
    assert_eq!(loadings(&loaded(&sidecar, "cached").await?), 0);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn without_distributed_load_a_worker_is_killed_half_way() -> Result<()> {
    let cluster = without_the_command().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    for replicas in [1, 2] {
        let id = format!("killed-{replicas}");
        let data = cluster.data(&id)?;
        data.files(2500, 16 * KIB)?;
        let tree = cluster.oracle().tree(data.path()).await?;
        begin_with(&sidecar, Engine::Unspecified, &id, data.path(), replicas).await?;
        half_way(&sidecar, &id, &tree, replicas as usize).await?;
        cluster.kill(Role::Worker(2), Signal::SIGKILL).await?;
        if replicas == 1 {
            assert_honest(cluster, &sidecar, &loaded(&sidecar, &id).await?).await?;
        }
        cluster.start_role(Role::Worker(2)).await?;
        assert_honest(cluster, &sidecar, &loaded(&sidecar, &id).await?).await?;
    }
    sidecar.assert_no_errors()
}

/// What rests on the words and the accounting of the workers.
#[tokio::test]
async fn without_distributed_load_cuts_kills_and_evictions_are_seen() -> Result<()> {
    let cluster = without_the_command().await?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let (data, tree, bad) = stumps::data(cluster, "cut", 60).await?;
    sidecar.start_load(natively("cut", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    stumps::assert_named(cluster, &sidecar, "cut", &tree, &bad).await?;

    let data = cluster.data("killed")?;
    data.files(2500, 16 * KIB)?;
    data.below("large")?.files(4, 20 * MIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    begin_with(&sidecar, Engine::Native, "killed", data.path(), 1).await?;
    half_way(&sidecar, "killed", &tree, 1).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    let load = loaded(&sidecar, "killed").await?;
    assert_eq!((load.engine(), load.attempt), (Engine::Native, 1), "{}", shown(&load));
    cluster.oracle().assert_loaded(data.path(), 1).await?;

    let data = cluster.data("evicted")?;
    data.files(20, 9000)?;
    begin_with(&sidecar, Engine::Unspecified, "evicted", data.path(), 1).await?;
    loaded(&sidecar, "evicted").await?;
    let gone = ["f00003", "f00007"].map(|name| format!("{}/{name}", data.path()));
    free(cluster, &gone).await?;
    let stale = judged(&sidecar, "evicted").await?;
    assert_evicted(&sidecar, &stale, &gone, 9000, 20).await?;
    begin_with(&sidecar, Engine::Unspecified, "again", data.path(), 1).await?;
    loaded(&sidecar, "again").await?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_launcher_that_is_not_there_is_named() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("launcher")?;
    data.files(2, KIB)?;
    let launcher = cluster.sandbox().directory().join("nowhere/bin/alluxio");
    let sidecar = Setup::new(cluster).launcher(&launcher).start().await?;
    begin_with(&sidecar, Engine::DistributedLoad, "launcher", data.path(), 1).await?;
    let load = failed(&sidecar, "launcher", Reason::CommandMissing).await?;
    for part in [&*launcher.to_string_lossy(), "--alluxio"] {
        assert!(load.message.contains(part), "{part} is not named: {}", shown(&load));
    }
    assert_eq!(loadings(&load), 0);
    begin_with(&sidecar, Engine::Unspecified, "auto", data.path(), 1).await?;
    let load = loaded(&sidecar, "auto").await?;
    assert_eq!(load.engine(), Engine::Native);
    assert_eq!(load.engine_reason, "distributedLoad cannot be run here");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_cluster_without_authentication_is_loaded() -> Result<()> {
    let options = Options { authentication: Authentication::NoSasl, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    for (engine, name) in [(Engine::DistributedLoad, "command"), (Engine::Native, "native")] {
        for replicas in [1, 2] {
            let id = format!("{name}-{replicas}");
            let data = cluster.data(&id)?;
            data.files(20, 16 * KIB)?;
            data.file("large", 20 * MIB)?;
            begin_with(&sidecar, engine, &id, data.path(), replicas).await?;
            loaded(&sidecar, &id).await?;
            cluster.oracle().assert_loaded(data.path(), replicas as usize).await?;
        }
    }
    sidecar.assert_no_errors()
}
