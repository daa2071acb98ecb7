//! The job service breaks before or during a load by the command. What that leaves undone is loaded natively.

use super::command_of;
use crate::outcome::{
    PATIENCE, assert_honest, assert_repaired, begin_with, failed, half_way, loaded, loadings, reaches, shown,
    visited, wait_at_most, waits, wish,
};
use crate::support::job_service;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, MIB, Options, Role, Sidecar, load as request, wait};
use std::time::{Duration, SystemTime};

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];
const COMMAND: Engine = Engine::DistributedLoad;

/// Alluxio believes in a dead job worker for 60 s; this is enough to tell a dead one from a forgotten one.
const JOB_WORKER_TIMEOUT: &str = "20sec";

#[tokio::test]
async fn job_workers_come_and_go() -> Result<()> {
    let timeout = ("alluxio.job.master.worker.timeout".to_owned(), JOB_WORKER_TIMEOUT.to_owned());
    let cluster = Cluster::start(Options { properties: vec![timeout], ..Options::default() }).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let job_workers = [Role::JobWorker(1), Role::JobWorker(2)];
    for role in job_workers {
        cluster.kill(role, Signal::SIGKILL).await?;
    }
    dead_job_workers_are(&cluster, "silent", |ages| ages.iter().all(|age| *age > Duration::from_secs(4)))
        .await?;
    let silent = cluster.data("silent")?;
    silent.files(5, KIB)?;
    sidecar
        .start_load(wish("silent", silent.path(), 1, |spec| {
            spec.set_engine(COMMAND);
            wait_at_most(spec, 3);
        })?)
        .await?;
    let load = failed(&sidecar, "silent", Reason::GateTimedOut).await?;
    ensure!(visited(&load).contains(&(State::Waiting, Reason::NoJobWorker)), "{}", shown(&load));
    assert_eq!(loadings(&load), 0, "it would have done nothing: {}", shown(&load));
    assert!(load.message.contains("job worker"), "{}", load.message);

    dead_job_workers_are(&cluster, "forgotten", <[_]>::is_empty).await?;
    let whole = cluster.data("whole")?;
    let half = whole.below("half")?;
    half.files(5, KIB)?;
    whole.files(5, KIB)?;
    begin_with(&sidecar, COMMAND, "forgotten", half.path(), 1).await?;
    let waiting = waits(&sidecar, "forgotten", Reason::NoJobWorker).await?;
    assert_eq!(loadings(&waiting), 0, "{}", shown(&waiting));
    for role in job_workers {
        cluster.start_role(role).await?;
    }
    let load = loaded(&sidecar, "forgotten").await?;
    assert_eq!((load.engine(), load.attempt, loadings(&load)), (COMMAND, 1, 1), "{}", shown(&load));
    cluster.oracle().assert_loaded(half.path(), 1).await?;

    // With half of it cached, they die before the command has started its jobs. Not in the middle of that:
    // now and then such a job is never told that its worker is dead, and the command waits for ever.
    begin_with(&sidecar, COMMAND, "whole", whole.path(), 1).await?;
    reaches(&sidecar, "whole", "loading", |load| load.state() == State::Loading).await?;
    for role in job_workers {
        cluster.kill(role, Signal::SIGKILL).await?;
    }
    let load = loaded(&sidecar, "whole").await?;
    assert_repaired(&load)?;
    assert_honest(&cluster, &sidecar, &load).await?;

    // AUTO does not wait for them.
    let auto = cluster.data("auto")?;
    auto.files(5, KIB)?;
    dead_job_workers_are(&cluster, "forgotten", <[_]>::is_empty).await?;
    sidecar.start_load(request("auto", auto.path(), 2)).await?;
    let load = loaded(&sidecar, "auto").await?;
    assert_eq!((load.engine(), load.attempt, loadings(&load)), (Engine::Native, 1, 1), "{}", shown(&load));
    assert_eq!(load.engine_reason, "no job service with live workers answers");
    ensure!(!visited(&load).iter().any(|(_, reason)| *reason == Reason::NoJobWorker), "{}", shown(&load));
    cluster.oracle().assert_loaded(auto.path(), 2).await?;
    sidecar.assert_no_errors()
}

/// The job master asks for the block workers once in two minutes: a command that begins right after a worker has
/// come up finds too few in its memory, and loads nothing for as long.
#[tokio::test]
async fn a_job_master_that_does_not_know_a_worker_yet() -> Result<()> {
    let cluster = Cluster::start(Options { workers: 1, ..Options::default() }).await?;
    // With every line that the command prints.
    let sidecar = Sidecar::start(&cluster, &["--log", "info,alluxio_command=debug"]).await?;
    let first = cluster.data("first")?;
    first.files(5, KIB)?;
    begin_with(&sidecar, COMMAND, "first", first.path(), 1).await?;
    loaded(&sidecar, "first").await?;

    for role in [Role::Worker(2), Role::JobWorker(2)] {
        cluster.start_role(role).await?;
    }
    let data = cluster.data("both")?;
    data.files(20, 16 * KIB)?;
    begin_with(&sidecar, COMMAND, "both", data.path(), 2).await?;
    let load = loaded(&sidecar, "both").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    assert_repaired(&load).context("it knew the worker, which proves nothing")?;
    sidecar.assert_no_errors()
}

/// Waits until what the job master says of the age of its workers' last words satisfies `condition`.
async fn dead_job_workers_are(
    cluster: &Cluster,
    what: &str,
    condition: impl Fn(&[Duration]) -> bool,
) -> Result<()> {
    let client = job_service(cluster);
    wait::until(&format!("dead job workers to be {what}"), wait::LIMIT, async || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let heard = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        let workers = client.job_workers().await?;
        let ages: Vec<_> = workers.iter().map(|w| now.saturating_sub(heard(w.last_updated_ms))).collect();
        ensure!(condition(&ages), "{ages:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn the_job_master_comes_and_goes() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    // With every line that the command prints; it may wait for ever for jobs that a restarted job master forgot.
    let arguments = ["--log", "info,alluxio_command=debug", "--stall-after", "20s"];
    let sidecar = Sidecar::start(&cluster, &arguments).await?;
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    let absent = cluster.data("absent")?;
    absent.files(5, KIB)?;
    begin_with(&sidecar, COMMAND, "absent", absent.path(), 1).await?;
    let waiting = waits(&sidecar, "absent", Reason::AlluxioUnreachable).await?;
    assert_eq!(loadings(&waiting), 0, "{}", shown(&waiting));
    for part in ["job service", &cluster.job_master_address()] {
        assert!(waiting.message.contains(part), "{part} is not named: {}", shown(&waiting));
    }
    cluster.start_role(Role::JobMaster).await?;
    loaded(&sidecar, "absent").await?;
    cluster.oracle().assert_loaded(absent.path(), 1).await?;

    // Killed while it lists and starts jobs: dead until the command has given up; and back at once.
    for (name, at_once) in [("dead", false), ("restarted", true)] {
        let data = cluster.data(name)?;
        data.files(300, 16 * KIB)?;
        let tree = cluster.oracle().tree(data.path()).await?;
        begin_with(&sidecar, COMMAND, name, data.path(), 1).await?;
        half_way(&sidecar, name, &tree, 1).await?;
        cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
        if !at_once {
            gives_up(&sidecar, data.path()).await?;
        }
        // What is missing is loaded without it.
        if at_once {
            cluster.start_role(Role::JobMaster).await?;
        }
        let load = loaded(&sidecar, name).await?;
        assert_honest(&cluster, &sidecar, &load).await?;
        if !at_once {
            assert_repaired(&load)?;
            cluster.start_role(Role::JobMaster).await?;
        }
    }

    // Killed while the command waits for jobs that all have been started: it exits with 0 then.
    let data = cluster.data("waiting")?;
    data.files(10, 16 * MIB)?;
    let before = sidecar.log().len();
    begin_with(&sidecar, COMMAND, "waiting", data.path(), 1).await?;
    let said = |text: &str| sidecar.log()[before..].contains(text);
    wait::until("the end of the submission", PATIENCE, async || {
        Ok(said("Submitted successfully").then_some(()))
    })
    .await?;
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    gives_up(&sidecar, data.path()).await?;
    assert!(said("Unable to get running status"), "{}", sidecar.log_end());
    // Its workers may have done what they had begun; whatever is missing is loaded without it.
    assert_honest(&cluster, &sidecar, &loaded(&sidecar, "waiting").await?).await?;
    sidecar.assert_no_errors()
}

/// Waits until the command has ended.
async fn gives_up(sidecar: &Sidecar<'_>, path: &str) -> Result<()> {
    wait::until("the command to give up", PATIENCE, async || {
        Ok(command_of(sidecar, path)?.is_none().then_some(()))
    })
    .await
}
