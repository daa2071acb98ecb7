//! CancelLoad and `spec.timeout`: what is ours ends everywhere, at any moment, and nothing else does.

use crate::support::{assert_nothing_works_on, cancel, changes, live_jobs, loaders, rough, watch_until};
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::{Load, LoadSpec, StartLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Data, Exit, Leash, MIB, Sidecar, load, shared, wait};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::Code;

/// Small files: the command is still submitting when a fifth is loaded.
const SMALL: (usize, u64) = (800, 16 * 1024);
/// After CANCELLED nothing may be cached any more for so long.
const STEADY: Duration = Duration::from_secs(10);

/// A sidecar that has loaded before: it knows what the command can do, and begins the next load at once. Its
/// log has what the command says.
async fn warm(cluster: &Cluster) -> Result<Sidecar<'_>> {
    let data = cluster.data("warm")?;
    data.files(1, 10)?;
    let sidecar = Sidecar::start(cluster, &["--log", "info,alluxio_command=debug"]).await?;
    sidecar.start_load(load("warm", data.path(), 1)).await?;
    sidecar.in_state("warm", State::Loaded).await?;
    Ok(sidecar)
}

/// Cancels when a fifth of the bytes is cached, and proves that nothing goes on. Where the load ran ahead of us,
/// another one is tried.
async fn cancelled_half_way(cluster: &Cluster, name: &str, (files, size): (usize, u64)) -> Result<()> {
    for _ in 0..4 {
        let data = cluster.data(name)?;
        data.files(files, size)?;
        if cancelled_in_time(cluster, &data).await? {
            return Ok(());
        }
    }
    anyhow::bail!("too late each time, which proves nothing")
}

/// False: more than six tenths were cached when it was to be cancelled.
async fn cancelled_in_time(cluster: &Cluster, data: &Data) -> Result<bool> {
    let path = data.path();
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("a", path, 1)).await?;
    let tree = cluster.oracle().tree(path).await?;
    let length = tree.copies()?.length();
    let at = wait::until("a fifth to be cached", wait::LIMIT, async || {
        let cached = tree.copies()?.bytes(1);
        Ok((cached * 5 >= length).then_some(cached))
    })
    .await?;
    if at * 10 > length * 6 {
        sidecar.finished("a").await?;
        return Ok(false);
    }
    let jobs = live_jobs(cluster, path).await?.len();
    let began = Instant::now();
    cancel(&sidecar, "a").await?;
    wait::until("the end of the command", wait::LIMIT, async || {
        Ok(loaders(cluster, path).is_empty().then_some(()))
    })
    .await?;
    let command = began.elapsed();
    let load = sidecar.finished("a").await?;
    if load.state() == State::Loaded {
        return Ok(false);
    }
    assert_cancelled(&load);
    let all = began.elapsed();
    let cached = steady(cluster, path).await?;
    eprintln!(
        "{jobs} live jobs; the command ended in {command:?}, all in {all:?}, with {cached} of {length} bytes"
    );
    sidecar.assert_no_errors()?;
    Ok(cached < length)
}

fn assert_cancelled(load: &Load) {
    assert_eq!((load.state(), load.reason()), (State::Cancelled, Reason::CancelledByUser), "{load:?}");
    assert_eq!(load.error.as_ref().map(|error| Code::from(error.code)), Some(Code::Cancelled), "{load:?}");
    assert!(load.end_time.is_some(), "{load:?}");
}

/// Nothing works on `path` now, and for [`STEADY`] its cached bytes do not change; gives them.
async fn steady(cluster: &Cluster, path: &str) -> Result<u64> {
    assert_nothing_works_on(cluster, path).await?;
    let tree = cluster.oracle().tree(path).await?;
    let cached = tree.copies()?.bytes(usize::MAX);
    let since = Instant::now();
    wait::until("time to pass", 3 * STEADY, async || {
        let now = tree.copies()?.bytes(usize::MAX);
        Ok((now != cached || since.elapsed() >= STEADY).then_some(now))
    })
    .await
    .and_then(|now| {
        let after = since.elapsed();
        ensure!(now == cached, "cached bytes went from {cached} to {now} {after:?} after the end");
        Ok(())
    })?;
    assert_nothing_works_on(cluster, path).await?;
    Ok(cached)
}

#[tokio::test]
async fn small_files_half_way() -> Result<()> {
    cancelled_half_way(rough().await?, "cancel-small", SMALL).await
}

#[tokio::test]
async fn big_files_half_way() -> Result<()> {
    cancelled_half_way(rough().await?, "cancel-big", (24, 15 * MIB)).await
}

#[tokio::test]
async fn before_the_command_has_submitted() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("cancel-early")?;
    data.files(200, SMALL.1)?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    cancel(&sidecar, "a").await?;
    assert_cancelled(&sidecar.in_state("a", State::Cancelled).await?);
    steady(cluster, data.path()).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn while_listing() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cancel-listing")?;
    // Alluxio needs 1 to 2 ms to load the metadata of a file it has never seen.
    data.files(2000, 10)?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Listing).await?;
    cancel(&sidecar, "a").await?;
    let load = sidecar.in_state("a", State::Cancelled).await?;
    assert_cancelled(&load);
    assert_eq!(
        changes(&load),
        [
            (State::Queued, State::Waiting),
            (State::Waiting, State::Listing),
            (State::Listing, State::Cancelled)
        ]
    );
    assert_eq!((load.attempt, cluster.oracle().copies(data.path()).await?.bytes(9)), (0, 0));
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn while_waiting_and_while_queued_and_twice() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cancel-waiting")?;
    data.files(1, 10)?;
    let sidecar = Sidecar::start(cluster, &["--max-running", "1"]).await?;
    let spec = LoadSpec { path: data.path().to_owned(), min_workers: 9, ..LoadSpec::default() };
    sidecar.start_load(StartLoadRequest { load_id: "waits".into(), spec: Some(spec) }).await?;
    let shut = watch_until(&sidecar, "waits", |load| load.state() == State::Waiting).await?;
    sidecar.start_load(load("queued", data.path(), 1)).await?;
    assert_eq!(sidecar.get_load("queued").await?.state(), State::Queued, "{shut:?}");

    cancel(&sidecar, "queued").await?;
    cancel(&sidecar, "queued").await?;
    let queued = sidecar.in_state("queued", State::Cancelled).await?;
    assert_cancelled(&queued);
    assert_eq!(changes(&queued), [(State::Queued, State::Cancelled)]);

    cancel(&sidecar, "waits").await?;
    let waited = sidecar.in_state("waits", State::Cancelled).await?;
    assert_cancelled(&waited);
    assert_eq!(changes(&waited), [(State::Queued, State::Waiting), (State::Waiting, State::Cancelled)]);
    assert_eq!(cancel(&sidecar, "waits").await?, waited, "cancelled twice, nothing changes");

    let error = cancel(&sidecar, "never-started").await.expect_err("there is no such load");
    let status = error.downcast_ref::<tonic::Status>().context("a status")?;
    assert_eq!(status.code(), Code::NotFound);
    sidecar.assert_no_errors()
}

/// Loads that end by themselves while they are being cancelled, one way or the other.
#[tokio::test]
async fn while_it_ends() -> Result<()> {
    const LOADS: usize = 120;
    let cluster = shared().await?;
    let sidecar = Sidecar::start(cluster, &["--max-queued", "1000"]).await?;
    let mut ends = std::collections::BTreeMap::<_, usize>::new();
    for number in 0..LOADS {
        let id = format!("l{number}");
        sidecar.start_load(load(&id, "/no/such/path", 1)).await?;
        // Later and later, from before it begins to after its end.
        let listing = watch_until(&sidecar, &id, |load| load.state() != State::Queued).await?;
        if listing.end_time.is_none() {
            tokio::time::sleep(Duration::from_micros(200 * number as u64)).await;
        }
        let told = cancel(&sidecar, &id).await?;
        let load = sidecar.finished(&id).await?;
        ensure!(matches!(load.state(), State::Failed | State::Cancelled), "{load:?}");
        ensure!(told.end_time.is_none() || told == load, "{told:?}, then {load:?}");
        *ends.entry(load.state()).or_default() += 1;
    }
    eprintln!("{ends:?}");
    ensure!(ends.len() == 2, "all ended in one way, which proves nothing: {ends:?}");
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_finished_load_stays_as_it_is() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cancel-late")?;
    data.files(3, 1000)?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    let loaded = sidecar.in_state("a", State::Loaded).await?;
    assert_eq!(cancel(&sidecar, "a").await?, loaded);
    assert_eq!(sidecar.get_load("a").await?, loaded);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_load_that_takes_too_long_ends_like_a_cancelled_one() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("timeout")?;
    // More than a fast machine loads in the time given.
    data.files(3 * SMALL.0, SMALL.1)?;
    // Alluxio knows the metadata, so that the time is spent in LOADING.
    let length = cluster.oracle().copies(data.path()).await?.length();
    let sidecar = warm(cluster).await?;

    let timeout = Some(prost_types::Duration { seconds: 6, nanos: 0 });
    let spec = LoadSpec { path: data.path().to_owned(), timeout, ..LoadSpec::default() };
    sidecar.start_load(StartLoadRequest { load_id: "a".into(), spec: Some(spec) }).await?;
    let load = sidecar.finished("a").await?;
    assert_eq!((load.state(), load.reason()), (State::Failed, Reason::TimedOut), "{load:?}");
    assert!(changes(&load).contains(&(State::Listing, State::Loading)), "{load:?}");
    assert!(load.message.contains("6 s"), "{}", load.message);
    assert_eq!(load.error.as_ref().map(|error| Code::from(error.code)), Some(Code::DeadlineExceeded));
    let cached = steady(cluster, data.path()).await?;
    ensure!(cached < length, "it was loaded in time, which proves nothing");
    sidecar.assert_no_errors()
}

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
    sidecar.start_load(load("a", data.path(), 1)).await?;
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
    sidecar.assert_no_errors()
}

/// The foreign load began before ours: its jobs are older, but for their paths they could be ours.
#[tokio::test]
async fn an_older_load_of_the_same_path_goes_on() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("same")?;
    data.files(1000, SMALL.1)?;
    let sidecar = warm(cluster).await?;

    let foreign = Foreign::load(cluster, data.path(), "Submitted successfully").await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
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
    sidecar.assert_no_errors()
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
    sidecar.start_load(load("a", data.path(), 1)).await?;
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
    sidecar.assert_no_errors()
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
    sidecar.start_load(load("a", data.path(), 1)).await?;
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
    sidecar.assert_no_errors()
}
