//! What a killed sidecar leaves of a command: nothing.

use super::{Course, STRAIGHT, assert_continues, has_jobs, loading};
use crate::outcome::assert_repaired;
use crate::support::{changes, job_service, live_jobs, loaders, rough, watch_until};
use alluxio_client::JobStatus;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::processes::{self, Process};
use preload_tests::{Sidecar, wait};
use std::collections::BTreeSet;

/// Everything that the sidecar started dies by itself, and its jobs are cancelled when it is back.
#[tokio::test]
async fn killed_while_loading() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) = loading(cluster, "crash-loading", Course { files: 300, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    let before = watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    let family = sidecar.descendants()?;
    let runs = |word: &str| family.iter().any(|process| process.command.contains(word));
    assert!(runs(" supervise ") && runs("FileSystemShell distributedLoad"), "{family:?}");

    sidecar.kill9().await?;
    wait::until("the end of what it started", wait::LIMIT, async || {
        let left: Vec<_> = processes::all().into_iter().filter(|p| family.contains(p)).collect();
        ensure!(left.is_empty() && loaders(cluster, data.path()).is_empty(), "{left:?}");
        Ok(Some(()))
    })
    .await?;
    let jobs: BTreeSet<_> = live_jobs(cluster, data.path()).await?.into_iter().map(|job| job.id).collect();
    eprintln!("{} jobs go on without the command", jobs.len());

    sidecar.restart().await?;
    let again = (State::Listing, State::Loading);
    let next = watch_until(&sidecar, "a", |load| {
        let loadings = changes(load).into_iter().filter(|change| *change == again).count();
        loadings == 2 || load.state() == State::Loaded
    })
    .await?;
    assert_continues(&before, &next)?;
    let live = job_service(cluster).jobs(&[JobStatus::Created, JobStatus::Running]).await?;
    let left: Vec<_> = live.iter().filter(|job| jobs.contains(&job.id)).collect();
    assert!(left.is_empty(), "jobs of the first command are left: {left:?}");
    STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    sidecar.assert_no_errors()
}

/// The sidecar and the supervisor that would have ended the command, at once: the next start finds it.
#[tokio::test]
async fn killed_with_its_supervisor() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) = loading(cluster, "crash-both", Course { files: 300, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    let (supervisors, command) = supervisors_and_commands(&sidecar)?;
    for process in &supervisors {
        kill(Pid::from_raw(i32::try_from(process.pid)?), Signal::SIGSTOP)?;
    }
    sidecar.kill9().await?;
    for process in &supervisors {
        kill(Pid::from_raw(i32::try_from(process.pid)?), Signal::SIGKILL)?;
    }
    let alive = || processes::all().into_iter().filter(|p| command.iter().any(|c| c.pid == p.pid)).count();
    ensure!(alive() > 0, "the command ended by itself, which proves nothing");
    sidecar.restart().await?;
    assert_eq!(alive(), 0, "the command of the sidecar that was killed still runs");
    STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    sidecar.assert_no_errors()
}

/// Its command goes with it, and what it left undone is repaired.
#[tokio::test]
async fn a_supervisor_that_is_killed_alone() -> Result<()> {
    let cluster = rough().await?;
    let (data, sidecar, _) = loading(cluster, "crash-leash", Course { files: 300, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    let (supervisors, command) = supervisors_and_commands(&sidecar)?;
    for process in &supervisors {
        kill(Pid::from_raw(i32::try_from(process.pid)?), Signal::SIGKILL)?;
    }
    let loaded = STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    let left: Vec<_> = processes::all().into_iter().filter(|p| command.contains(p)).collect();
    ensure!(left.is_empty(), "processes are left: {left:?}");
    assert_repaired(&loaded)?;
    let why = loaded.transitions.iter().find(|change| change.from() == State::Loading);
    let why = why.context("it never loaded")?.message.clone();
    ensure!(why.contains("supervisor was killed by signal 9"), "{why}");
    sidecar.assert_no_errors()
}

/// What the sidecar started.
fn supervisors_and_commands(sidecar: &Sidecar<'_>) -> Result<(Vec<Process>, Vec<Process>)> {
    let family = sidecar.descendants()?;
    let (supervisors, command): (Vec<_>, Vec<_>) =
        family.into_iter().partition(|process| process.command.contains(" supervise "));
    ensure!(!supervisors.is_empty() && !command.is_empty(), "no command runs");
    Ok((supervisors, command))
}
