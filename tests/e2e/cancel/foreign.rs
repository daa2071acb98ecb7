//! What others do beside a load that is cancelled goes on.

use super::{COMMAND, SMALL, assert_cancelled, steady, warm};
use crate::outcome::begin_with;
use crate::support::{assert_nothing_works_on, cancel, live_jobs, rough, watch_until};
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Data, Exit, Leash, wait};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// An `alluxio` command that somebody else runs.
struct Foreign {
    leash: Leash,
    log: PathBuf,
}

impl Foreign {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Self> {
        let log = cluster.sandbox().folder("foreign")?.join("log");
        let mut command = Command::new(cluster.launcher());
        command.args(arguments).env("LC_ALL", "C.UTF-8").current_dir(cluster.sandbox().directory());
        // Written to the cache at once, and to the under file system by jobs of Alluxio's.
        command.env("ALLUXIO_USER_JAVA_OPTS", "-Dalluxio.user.file.writetype.default=ASYNC_THROUGH");
        Ok(Self { leash: Leash::start(&command, &log, &log)?, log })
    }

    /// `distributedLoad` that says `words`, or has jobs if there are none; again where a command that was
    /// killed before has left the job master without its connection.
    async fn load(cluster: &Cluster, path: &str, words: &str) -> Result<Self> {
        for _ in 0..5 {
            let foreign = Self::start(cluster, &["fs", "distributedLoad", path])?;
            let goes = wait::until("a foreign load", wait::LIMIT, async || {
                if foreign.said()?.contains("is not authenticated") {
                    return Ok(Some(false));
                }
                let jobs = live_jobs(cluster, path).await?.len();
                Ok((jobs > 0 && foreign.said()?.contains(words)).then_some(true))
            });
            if goes.await? {
                return Ok(foreign);
            }
        }
        anyhow::bail!("the job master fails every command on {path}")
    }

    fn said(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("read what the command said")
    }

    async fn succeeds(&self) -> Result<String> {
        let exit = self.leash.exited(wait::LIMIT).await?;
        let said = self.said()?;
        ensure!(exit == Exit::Code(0), "the foreign command ended with {exit:?}: {said}");
        Ok(said)
    }
}

#[tokio::test]
async fn writes_of_users_go_on() -> Result<()> {
    const WRITTEN: usize = 300;
    let cluster = rough().await?;
    let data = cluster.data("cancel-ours")?;
    data.files(200, SMALL.1)?;
    let source = Data::create(cluster.sandbox().folder("source")?, String::new())?;
    source.files(WRITTEN, 10_000)?;
    // Alluxio knows the directory, else nothing can be written below it.
    cluster.oracle().tree(data.path()).await?;
    let jobs_named = async |name: &str, path: &str| {
        let jobs = live_jobs(cluster, path).await?;
        anyhow::Ok(jobs.iter().filter(|job| job.name == name).count())
    };
    let sidecar = warm(cluster).await?;

    // Below our path: a write that is not in the under file system yet would be lost with its job.
    let (written, ufs) = (format!("{}/written", data.path()), data.ufs().join("written"));
    let from = source.ufs().to_string_lossy();
    let writer = Foreign::start(cluster, &["fs", "copyFromLocal", &from, &written])?;
    wait::until("the first write", wait::LIMIT, async || {
        ensure!(writer.leash.is_running(), "{}", writer.said()?);
        Ok((jobs_named("Persist", &written).await? > 0).then_some(()))
    })
    .await?;
    begin_with(&sidecar, COMMAND, "a", data.path(), 1).await?;
    wait::until("jobs of ours", wait::LIMIT, async || {
        Ok((jobs_named("Load", data.path()).await? > 0).then_some(()))
    })
    .await?;
    let writes = jobs_named("Persist", &written).await?;
    cancel(&sidecar, "a").await?;
    let load = sidecar.in_state("a", State::Cancelled).await?;
    assert_cancelled(&load);
    assert_eq!(jobs_named("Load", data.path()).await?, 0, "jobs of ours are left");
    eprintln!("cancelled beside {writes} writes");
    ensure!(writes > 0, "no write was under way, which proves nothing");

    writer.succeeds().await?;
    wait::until("the writes in the under file system", wait::LIMIT, async || {
        for name in (0..WRITTEN).map(|number| format!("f{number:05}")) {
            ensure!(fs::read(source.ufs().join(&name))? == fs::read(ufs.join(&name))?, "{name} differs");
        }
        Ok(Some(()))
    })
    .await?;
    let copies = cluster.oracle().copies(data.path()).await?;
    ensure!(!copies.missing(1).is_empty(), "it was cancelled too late to prove anything");
    sidecar.assert_quiet()
}

/// The foreign load began before ours: its jobs are older, but for their paths they could be ours.
#[tokio::test]
async fn an_older_load_of_the_same_path_goes_on() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("same")?;
    data.files(1000, SMALL.1)?;
    let sidecar = warm(cluster).await?;

    let foreign = Foreign::load(cluster, data.path(), "Submitted successfully").await?;
    begin_with(&sidecar, COMMAND, "a", data.path(), 1).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    let theirs = live_jobs(cluster, data.path()).await?.len();
    ensure!(theirs > 0, "the foreign load has ended, which proves nothing");
    cancel(&sidecar, "a").await?;
    let load = sidecar.in_state("a", State::Cancelled).await?;
    assert_cancelled(&load);
    let said = foreign.succeeds().await?;
    ensure!(said.contains("Total completed file count is 1000, failed file count is 0"), "{said}");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.assert_quiet()
}

/// The same while the older load still submits: jobs of its that start later than our command are not ours.
#[tokio::test]
async fn an_older_load_of_the_same_path_that_still_submits_goes_on() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("same-submitting")?;
    data.files(1200, SMALL.1)?;
    let sidecar = warm(cluster).await?;
    cluster.oracle().tree(data.path()).await?;

    let foreign = Foreign::load(cluster, data.path(), "").await?;
    begin_with(&sidecar, COMMAND, "a", data.path(), 1).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    let submitting = !foreign.said()?.contains("Submitted successfully");
    cancel(&sidecar, "a").await?;
    let load = sidecar.in_state("a", State::Cancelled).await?;
    assert_cancelled(&load);
    let said = foreign.succeeds().await?;
    ensure!(submitting, "the foreign load had submitted all, which proves nothing");
    ensure!(said.contains("Total completed file count is 1200, failed file count is 0"), "{said}");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.assert_quiet()
}

/// The job master submits one command after the other: ours, killed while it waits, is submitted all the same.
#[tokio::test]
async fn a_command_that_waits_behind_the_submission_of_another() -> Result<()> {
    let cluster = rough().await?;
    let (data, other) = (cluster.data("behind")?, cluster.data("before")?);
    data.files(50, SMALL.1)?;
    other.files(1000, SMALL.1)?;
    let sidecar = warm(cluster).await?;
    let submissions = || sidecar.log().matches("Please wait for command submission").count();
    let before = submissions();

    let foreign = Foreign::load(cluster, other.path(), "").await?;
    begin_with(&sidecar, COMMAND, "a", data.path(), 1).await?;
    wait::until("our command to submit", wait::LIMIT, async || Ok((submissions() > before).then_some(())))
        .await?;
    let theirs = live_jobs(cluster, other.path()).await?.len();
    ensure!(theirs > 0, "the foreign load has ended, which proves nothing");
    cancel(&sidecar, "a").await?;
    let load = sidecar.in_state("a", State::Cancelled).await?;
    assert_cancelled(&load);
    let cached = steady(cluster, data.path()).await?;
    let said = foreign.succeeds().await?;
    ensure!(said.contains("Total completed file count is 1000, failed file count is 0"), "{said}");
    assert_nothing_works_on(cluster, data.path()).await?;
    cluster.oracle().assert_loaded(other.path(), 1).await?;
    assert_eq!(cluster.oracle().copies(data.path()).await?.bytes(9), cached);
    sidecar.assert_quiet()
}
