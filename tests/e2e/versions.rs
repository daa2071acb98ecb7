//! Alluxios that differ from the default one: without the command, without authentication, without a launcher.

use crate::outcome::{begin, failed, loaded, loadings, shown};
use alluxio_preload_api::v1::load::{Reason, State};
use anyhow::{Result, ensure};
use preload_tests::{Authentication, Cluster, Options, Setup, Sidecar, prerequisites, shared, wait};

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

#[tokio::test]
async fn without_distributed_load_only_what_is_cached_is_loaded() -> Result<()> {
    let version = prerequisites::ALLUXIO_WITHOUT_DISTRIBUTED_LOAD;
    let options = Options { version, workers: 1, job_service: false, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("cached")?;
    data.files(5, 16 * KIB)?;

    begin(&sidecar, "cold", data.path(), 1).await?;
    let cold = failed(&sidecar, "cold", Reason::CommandMissing).await?;
    assert!(
        cold.message.contains("no distributedLoad") && cold.message.contains("2.9.3"),
        "{}",
        shown(&cold)
    );
    assert_eq!((loadings(&cold), cold.attempt), (0, 0), "{}", shown(&cold));
    assert_eq!(cluster.oracle().copies(data.path()).await?.most(), 0);

    cluster.alluxio(&["fs", "load", data.path(), "--submit"]).await?.success()?;
    let tree = cluster.oracle().tree(data.path()).await?;
    wait::until("Alluxio's own load", wait::LIMIT, async || {
        let missing = tree.copies()?.missing(1).len();
        ensure!(missing == 0, "{missing} files are missing");
        Ok(Some(()))
    })
    .await?;
    // The master hears of the last blocks with the next heartbeat.
    let mut tries = 0;
    let load = wait::until("a load of what is cached", wait::LIMIT, async || {
        tries += 1;
        let id = format!("cached-{tries}");
        begin(&sidecar, &id, data.path(), 1).await?;
        let load = sidecar.finished(&id).await?;
        ensure!(load.state() == State::Loaded, "{}", shown(&load));
        Ok(Some(load))
    })
    .await?;
    assert_eq!((loadings(&load), load.attempt), (0, 0), "{}", shown(&load));
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
    begin(&sidecar, "launcher", data.path(), 1).await?;
    let load = failed(&sidecar, "launcher", Reason::CommandMissing).await?;
    for part in [&*launcher.to_string_lossy(), "--alluxio"] {
        assert!(load.message.contains(part), "{part} is not named: {}", shown(&load));
    }
    assert_eq!(loadings(&load), 0);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_cluster_without_authentication_is_loaded() -> Result<()> {
    let options = Options { authentication: Authentication::NoSasl, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    for replicas in [1, 2] {
        let id = format!("nosasl-{replicas}");
        let data = cluster.data(&id)?;
        data.files(20, 16 * KIB)?;
        begin(&sidecar, &id, data.path(), replicas).await?;
        loaded(&sidecar, &id).await?;
        cluster.oracle().assert_loaded(data.path(), replicas as usize).await?;
    }
    sidecar.assert_no_errors()
}
