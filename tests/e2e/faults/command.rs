//! The command or its jobs end before they should. What they leave undone is loaded natively.

use super::command_of;
use crate::outcome::{assert_repaired, begin_with, half_way, loaded, reaches};
use crate::support::{assert_nothing_works_on, job_service, rough};
use alluxio_client::JobStatus;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::{Sidecar, shared};

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];
const COMMAND: Engine = Engine::DistributedLoad;

#[tokio::test]
async fn a_command_killed_from_outside_is_repaired() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("killed")?;
    data.files(300, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin_with(&sidecar, COMMAND, "killed", data.path(), 1).await?;
    half_way(&sidecar, "killed", &tree, 1).await?;
    let command = command_of(&sidecar, data.path())?.context("the command runs")?;
    kill(Pid::from_raw(i32::try_from(command.pid)?), Signal::SIGKILL)?;
    let load = loaded(&sidecar, "killed").await?;
    assert_repaired(&load)?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

/// The command hangs, its jobs do not: it is stopped when nothing moves any more, and the data are judged.
#[tokio::test]
async fn a_command_that_hangs_is_stopped() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("hangs")?;
    data.files(200, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(cluster, &["--stall-after", "8s"]).await?;
    begin_with(&sidecar, COMMAND, "hangs", data.path(), 1).await?;
    half_way(&sidecar, "hangs", &tree, 1).await?;
    let command = command_of(&sidecar, data.path())?.context("the command runs")?;
    kill(Pid::from_raw(i32::try_from(command.pid)?), Signal::SIGSTOP)?;
    let load = loaded(&sidecar, "hangs").await?;
    let why: Vec<_> = load.transitions.iter().filter(|change| change.from() == State::Loading).collect();
    assert_eq!(why[0].message, "distributedLoad made no progress for 8s and was stopped");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn jobs_cancelled_by_somebody_else_are_repaired() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cancelled")?;
    data.files(300, 16 * KIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin_with(&sidecar, COMMAND, "cancelled", data.path(), 1).await?;
    reaches(&sidecar, "cancelled", "loading", |load| load.state() == State::Loading).await?;
    let client = job_service(cluster);
    let below = format!("{}/", data.path());
    // To the end of the command: a job that runs already may finish all the same.
    let mut cancelled = 0;
    loop {
        let load = sidecar.get_load("cancelled").await?;
        if load.state() != State::Loading || load.engine() != COMMAND {
            break;
        }
        for job in client.jobs(&[JobStatus::Created, JobStatus::Running]).await? {
            if job.affected_paths.iter().all(|path| path.starts_with(&below)) {
                // An error: it ended meanwhile.
                cancelled += usize::from(client.cancel_job(job.id).await.is_ok());
            }
        }
    }
    let load = loaded(&sidecar, "cancelled").await?;
    assert_repaired(&load).with_context(|| format!("{cancelled} jobs were cancelled"))?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}
