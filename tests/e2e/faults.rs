//! Something breaks before or during a load: files, workers, the job service, the master, the command.
//! Whatever breaks, LOADED is said only of what is on the disks.

use crate::outcome::{
    PATIENCE, assert_honest, begin, ended, failed, failures, half_way, loaded, loadings, reaches, shown,
    visited, wait_at_most, waits, wish,
};
use crate::support::{assert_nothing_works_on, job_service, rough};
use alluxio_client::JobStatus;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::{Load, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::{Cluster, MIB, Options, Role, Sidecar, processes, shared, wait};
use std::fs;
use std::time::{Duration, SystemTime};
use tonic::Streaming;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

// === files ===

#[tokio::test]
async fn files_gone_or_cut_in_the_ufs_are_named() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("gone")?;
    data.files(5, 200_000)?;
    // Alluxio has to know them as they were.
    cluster.oracle().tree(data.path()).await?;
    fs::remove_file(data.ufs().join("f00001"))?;
    fs::write(data.ufs().join("f00003"), "cut")?;
    let bad = ["f00001", "f00003"].map(|name| format!("{}/{name}", data.path()));

    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(wish("gone", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    let load = failed(&sidecar, "gone", Reason::Incomplete).await?;
    assert_eq!((load.attempt, load.failures), (1, 2), "{}", shown(&load));
    let progress = load.progress.context("progress")?;
    assert_eq!((progress.files_total, progress.files_cached, progress.files_failed), (5, 3, 2));
    assert_eq!((progress.bytes_cached, progress.bytes_failed), (600_000, 400_000));

    let failures = failures(&sidecar, "gone").await?;
    assert_eq!(failures.iter().map(|f| f.path.clone()).collect::<Vec<_>>(), bad);
    for failure in &failures {
        assert_eq!((failure.length, failure.bytes_missing, failure.replicas_seen), (200_000, 200_000, 0));
        let words = failure.reason.strip_prefix("a block has no copy in the cache: ");
        assert!(words.is_some_and(|words| words.len() > 10), "no words of Alluxio: {failure:?}");
    }
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!(copies.missing(1), bad, "the rest is loaded");
    sidecar.assert_no_errors()
}

// === workers ===

#[tokio::test]
async fn a_worker_killed_half_way() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let data = cluster.data("worker")?;
    data.files(400, 64 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;

    begin(&sidecar, "one", data.path(), 1).await?;
    half_way(&sidecar, "one", &tree, 1).await?;
    cluster.kill(Role::Worker(2), Signal::SIGKILL).await?;
    let one = ended(&sidecar, "one").await?;
    assert_honest(&cluster, &sidecar, &one).await?;

    let more = cluster.data("two")?;
    more.files(50, 64 * KIB)?;
    begin(&sidecar, "two", more.path(), 2).await?;
    let two = waits(&sidecar, "two", Reason::WorkersMissing).await?;
    assert!(two.message.contains("1 of 2 workers are live"), "{}", shown(&two));
    cluster.start_role(Role::Worker(2)).await?;
    loaded(&sidecar, "two").await?;
    cluster.oracle().assert_loaded(more.path(), 2).await?;

    // Whatever became of the first load, another one makes it whole.
    begin(&sidecar, "again", data.path(), 1).await?;
    assert_honest(&cluster, &sidecar, &loaded(&sidecar, "again").await?).await?;
    sidecar.assert_no_errors()
}

// === job service ===

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
    sidecar.start_load(wish("silent", silent.path(), 1, |spec| wait_at_most(spec, 3))?).await?;
    let load = failed(&sidecar, "silent", Reason::GateTimedOut).await?;
    ensure!(visited(&load).contains(&(State::Waiting, Reason::NoJobWorker)), "{}", shown(&load));
    assert_eq!(loadings(&load), 0, "it would have done nothing: {}", shown(&load));
    assert!(load.message.contains("job worker"), "{}", load.message);

    dead_job_workers_are(&cluster, "forgotten", <[_]>::is_empty).await?;
    let whole = cluster.data("whole")?;
    let half = whole.below("half")?;
    half.files(5, KIB)?;
    whole.files(5, KIB)?;
    begin(&sidecar, "forgotten", half.path(), 1).await?;
    let waiting = waits(&sidecar, "forgotten", Reason::NoJobWorker).await?;
    assert_eq!(loadings(&waiting), 0, "{}", shown(&waiting));
    for role in job_workers {
        cluster.start_role(role).await?;
    }
    let load = loaded(&sidecar, "forgotten").await?;
    assert_eq!((load.attempt, loadings(&load)), (1, 1), "{}", shown(&load));
    cluster.oracle().assert_loaded(half.path(), 1).await?;

    // With half of it cached, they die before the command has started its jobs. Not in the middle of that:
    // now and then such a job is never told that its worker is dead, and the command waits for ever.
    begin(&sidecar, "whole", whole.path(), 1).await?;
    reaches(&sidecar, "whole", "loading", |load| load.state() == State::Loading).await?;
    for role in job_workers {
        cluster.kill(role, Signal::SIGKILL).await?;
    }
    waits(&sidecar, "whole", Reason::NoJobWorker).await?;
    for role in job_workers {
        cluster.start_role(role).await?;
    }
    assert_honest(&cluster, &sidecar, &loaded(&sidecar, "whole").await?).await?;
    sidecar.assert_no_errors()
}

/// The job master asks for the block workers once in two minutes: a load that begins right after a worker has come
/// up finds too few in its memory, and fails for as long.
#[tokio::test]
async fn a_job_master_that_does_not_know_a_worker_yet() -> Result<()> {
    let cluster = Cluster::start(Options { workers: 1, ..Options::default() }).await?;
    // With every line that the command prints.
    let sidecar = Sidecar::start(&cluster, &["--log", "info,alluxio_command=debug"]).await?;
    let first = cluster.data("first")?;
    first.files(5, KIB)?;
    begin(&sidecar, "first", first.path(), 1).await?;
    loaded(&sidecar, "first").await?;

    for role in [Role::Worker(2), Role::JobWorker(2)] {
        cluster.start_role(role).await?;
    }
    let data = cluster.data("both")?;
    data.files(20, 16 * KIB)?;
    begin(&sidecar, "both", data.path(), 2).await?;
    let load = loaded(&sidecar, "both").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    ensure!(load.attempt > 1, "it knew the worker, which proves nothing: {}", shown(&load));
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
    // With every line that the command prints.
    let sidecar = Sidecar::start(&cluster, &["--log", "info,alluxio_command=debug"]).await?;
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    let absent = cluster.data("absent")?;
    absent.files(5, KIB)?;
    begin(&sidecar, "absent", absent.path(), 1).await?;
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
        begin(&sidecar, name, data.path(), 1).await?;
        half_way(&sidecar, name, &tree, 1).await?;
        cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
        if !at_once {
            gives_up(&sidecar, data.path()).await?;
        }
        cluster.start_role(Role::JobMaster).await?;
        assert_honest(&cluster, &sidecar, &loaded(&sidecar, name).await?).await?;
    }

    // Killed while the command waits for jobs that all have been started: it exits with 0 then.
    let data = cluster.data("waiting")?;
    data.files(10, 16 * MIB)?;
    let before = sidecar.log().len();
    begin(&sidecar, "waiting", data.path(), 1).await?;
    let said = |text: &str| sidecar.log()[before..].contains(text);
    wait::until("the end of the submission", PATIENCE, async || {
        Ok(said("Submitted successfully").then_some(()))
    })
    .await?;
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    gives_up(&sidecar, data.path()).await?;
    assert!(said("Unable to get running status"), "{}", sidecar.log_end());
    cluster.start_role(Role::JobMaster).await?;
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

// === master ===

#[tokio::test]
async fn the_master_comes_and_goes_and_becomes_another() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let mut sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    let first = cluster.data("first")?;
    first.files(5, KIB)?;
    begin(&sidecar, "first", first.path(), 1).await?;
    let waiting = waits(&sidecar, "first", Reason::AlluxioUnreachable).await?;
    assert!(waiting.message.contains(&cluster.master_address()), "{}", shown(&waiting));
    cluster.start_role(Role::Master).await?;
    loaded(&sidecar, "first").await?;
    cluster.oracle().assert_loaded(first.path(), 1).await?;
    let following = follow(&sidecar, "first").await?;

    let data = cluster.data("half-way")?;
    data.files(300, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    begin(&sidecar, "half-way", data.path(), 1).await?;
    half_way(&sidecar, "half-way", &tree, 1).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    cluster.start_role(Role::Master).await?;
    let load = ended(&sidecar, "half-way").await?;
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
    begin(&sidecar, "second", second.path(), 1).await?;
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

// === the command and its jobs ===

#[tokio::test]
async fn a_command_killed_from_outside_is_run_again() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("killed")?;
    data.files(300, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin(&sidecar, "killed", data.path(), 1).await?;
    half_way(&sidecar, "killed", &tree, 1).await?;
    let command = command_of(&sidecar, data.path())?.context("the command runs")?;
    kill(Pid::from_raw(i32::try_from(command.pid)?), Signal::SIGKILL)?;
    let load = loaded(&sidecar, "killed").await?;
    assert!(load.attempt > 1, "{}", shown(&load));
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

/// The JVM that loads `path` for this sidecar.
fn command_of(sidecar: &Sidecar<'_>, path: &str) -> Result<Option<processes::Process>> {
    let is_it = |process: &processes::Process| {
        process.command.contains("alluxio.cli.fs.FileSystemShell distributedLoad")
            && process.command.ends_with(path)
    };
    Ok(sidecar.descendants()?.into_iter().find(is_it))
}

/// The command hangs, its jobs do not: it is stopped when nothing moves any more, and the data are judged.
#[tokio::test]
async fn a_command_that_hangs_is_stopped() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("hangs")?;
    data.files(200, 16 * KIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(cluster, &["--stall-after", "3s"]).await?;
    begin(&sidecar, "hangs", data.path(), 1).await?;
    half_way(&sidecar, "hangs", &tree, 1).await?;
    let command = command_of(&sidecar, data.path())?.context("the command runs")?;
    kill(Pid::from_raw(i32::try_from(command.pid)?), Signal::SIGSTOP)?;
    let load = loaded(&sidecar, "hangs").await?;
    let why: Vec<_> = load.transitions.iter().filter(|change| change.from() == State::Loading).collect();
    assert_eq!(why[0].message, "distributedLoad made no progress for 3s and was stopped");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn jobs_cancelled_by_somebody_else_are_run_again() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cancelled")?;
    data.files(300, 16 * KIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin(&sidecar, "cancelled", data.path(), 1).await?;
    reaches(&sidecar, "cancelled", "loading", |load| load.state() == State::Loading).await?;
    let client = job_service(cluster);
    let below = format!("{}/", data.path());
    // To the end of the attempt: a job that runs already may finish all the same.
    let mut cancelled = 0;
    loop {
        let load = sidecar.get_load("cancelled").await?;
        if load.state() != State::Loading || load.attempt > 1 {
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
    assert!(load.attempt > 1, "{cancelled} jobs were cancelled: {}", shown(&load));
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}
