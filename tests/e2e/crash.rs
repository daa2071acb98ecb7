//! kill -9, SIGTERM and restarts: nothing acknowledged is lost, the load goes on by itself, nothing is left.

use crate::outcome::{assert_honest, wish};
use crate::support::{assert_attempts, assert_in_order, assert_nothing_works_on, cancel, changes};
use crate::support::{job_service, live_jobs, loaders, rough, watch_until};
use alluxio_client::JobStatus;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::{Load, StartLoadRequest, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::processes::{self, Process};
use preload_tests::{Cluster, Data, Exit, Setup, Sidecar, load, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};
use tonic::Code;

const SMALL: u64 = 16 * 1024;
/// A stop ends the command (5 s of grace), its jobs (5 s) and open connections (5 s) one after the other.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A way through the states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    pub(crate) files: usize,
    pub(crate) replicas: u32,
    /// One of the files goes from the under file system before the load begins.
    pub(crate) gone: bool,
    /// All of it is cached before the load begins.
    pub(crate) cached: bool,
    /// It is cancelled once it is LOADING.
    pub(crate) cancelled: bool,
    pub(crate) end: State,
}

pub(crate) const STRAIGHT: Course =
    Course { files: 8, replicas: 1, gone: false, cached: false, cancelled: false, end: State::Loaded };

/// Fresh data, and a sidecar of its own that loads them.
pub(crate) async fn loading<'a>(
    cluster: &'a Cluster,
    name: &str,
    course: Course,
) -> Result<(Data, Sidecar<'a>, Load)> {
    let data = course.data(cluster, name).await?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    if course.cached {
        sidecar.start_load(course.request("before", &data)?).await?;
        sidecar.in_state("before", State::Loaded).await?;
    }
    let started = sidecar.start_load(course.request("a", &data)?).await?;
    Ok((data, sidecar, started))
}

impl Course {
    async fn data(self, cluster: &Cluster, name: &str) -> Result<Data> {
        let data = cluster.data(name)?;
        data.files(self.files, SMALL)?;
        if self.gone {
            // Alluxio knows it, and cannot load it.
            cluster.oracle().tree(data.path()).await?;
            fs::remove_file(data.ufs().join("f00000"))?;
        }
        Ok(data)
    }

    fn request(self, id: &str, data: &Data) -> Result<StartLoadRequest> {
        wish(id, data.path(), self.replicas, |spec| spec.max_attempts = if self.gone { 1 } else { 3 })
    }

    async fn cancel(self, sidecar: &Sidecar<'_>) -> Result<()> {
        if self.cancelled {
            watch_until(sidecar, "a", |load| load.state() >= State::Loading).await?;
            cancel(sidecar, "a").await?;
        }
        Ok(())
    }

    /// It ends as if nothing had happened: in order, without another attempt, and leaves nothing.
    pub(crate) async fn ends_well(
        self,
        cluster: &Cluster,
        sidecar: &Sidecar<'_>,
        path: &str,
    ) -> Result<Load> {
        self.cancel(sidecar).await?;
        let ended = sidecar.in_state("a", self.end).await?;
        assert_in_order(&ended)?;
        assert_attempts(&ended)?;
        if !self.cancelled {
            assert_honest(cluster, sidecar, &ended).await?;
        }
        assert_nothing_works_on(cluster, path).await?;
        ensure!(sidecar.descendants()?.is_empty(), "children are left: {:?}", sidecar.descendants()?);
        Ok(ended)
    }
}

/// The load is LOADING, and its command has jobs in the job service.
async fn has_jobs(cluster: &Cluster, path: &str) -> Result<()> {
    let jobs = async || Ok((!live_jobs(cluster, path).await?.is_empty()).then_some(()));
    wait::until("jobs of the command", wait::LIMIT, jobs).await
}

/// `now` is `before`, some changes later: nothing that was told is taken back.
pub(crate) fn assert_continues(before: &Load, now: &Load) -> Result<()> {
    ensure!(now.uid == before.uid, "another load: {before:?}, then {now:?}");
    ensure!(now.sequence >= before.sequence, "the sequence went back: {before:?}, then {now:?}");
    // At most 16 are kept.
    let seen = |load: &Load| load.transitions.iter().map(|t| t.sequence).collect::<BTreeSet<_>>();
    let (first, known) = (now.transitions.first().map_or(0, |t| t.sequence), seen(now));
    let lost: Vec<_> = seen(before).into_iter().filter(|s| *s >= first && !known.contains(s)).collect();
    ensure!(lost.is_empty(), "changes {lost:?} were taken back: {before:?}, then {now:?}");
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition() -> Result<()> {
    let points = killed_after_each(STRAIGHT).await?;
    assert_eq!(points.iter().filter(|(from, _)| *from == State::Loading).count(), 1);
    Ok(())
}

/// The plain command leaves out second copies, so that there is a second run.
#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_topped_up() -> Result<()> {
    let points = killed_after_each(Course { files: 100, replicas: 2, ..STRAIGHT }).await?;
    assert!(points.contains(&(State::Verifying, State::Loading)), "{points:?}");
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_fails() -> Result<()> {
    let points = killed_after_each(Course { gone: true, end: State::Failed, ..STRAIGHT }).await?;
    assert_eq!(points.last(), Some(&(State::Verifying, State::Failed)));
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_cached_already() -> Result<()> {
    let points = killed_after_each(Course { cached: true, ..STRAIGHT }).await?;
    assert!(points.contains(&(State::Listing, State::Verifying)), "{points:?}");
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_cancelled() -> Result<()> {
    let course = Course { files: 100, cancelled: true, end: State::Cancelled, ..STRAIGHT };
    let points = killed_after_each(course).await?;
    assert_eq!(points.last(), Some(&(State::Loading, State::Cancelled)));
    Ok(())
}

/// Learns the changes of state of the course, then kills a sidecar after each of them. Gives the changes.
async fn killed_after_each(course: Course) -> Result<Vec<(State, State)>> {
    let cluster = rough().await?;
    let (data, sidecar, _) = loading(cluster, "crash-learn", course).await?;
    let mut ended = course.ends_well(cluster, &sidecar, data.path()).await?;
    // Not the course with a command that Alluxio failed.
    for id in ["b", "c", "d"] {
        if ended.attempt > 1 {
            let data = course.data(cluster, "crash-learn").await?;
            sidecar.start_load(course.request(id, &data)?).await?;
            ended = sidecar.in_state(id, course.end).await?;
        }
    }
    drop(sidecar);
    let learned = changes(&ended);
    let mut points = Vec::new();
    while let Some(change) = learned.get(points.len()) {
        let killed = killed_after(cluster, course, points.len()).await;
        points.push(killed.with_context(|| format!("killed after {change:?}"))?);
    }
    assert_eq!(points.len(), learned.len());
    assert_eq!(points, learned);
    Ok(points)
}

async fn killed_after(cluster: &Cluster, course: Course, point: usize) -> Result<(State, State)> {
    let (data, mut sidecar, started) = loading(cluster, "crash", course).await?;
    if course.cancelled && point > 2 {
        course.cancel(&sidecar).await?;
    }
    let seen = watch_until(&sidecar, "a", |load| load.transitions.len() > point).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    let back = sidecar.get_load("a").await?;
    assert_continues(&started, &seen)?;
    assert_continues(&seen, &back)?;
    if seen.state() == course.end {
        assert_eq!(back, seen);
    } else {
        ensure!(back.sequence > seen.sequence, "a number was used twice: {seen:?}, then {back:?}");
    }
    let ended = course.ends_well(cluster, &sidecar, data.path()).await?;
    assert_continues(&back, &ended)?;
    sidecar.assert_no_errors()?;
    Ok(changes(&seen)[point])
}

#[tokio::test]
async fn killed_right_after_an_answer() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, started) = loading(cluster, "crash-start", STRAIGHT).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_continues(&started, &sidecar.get_load("a").await?)?;
    let loaded = STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;

    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_eq!(sidecar.get_load("a").await?, loaded, "a load that has ended stays as it is");

    let data = cluster.data("crash-cancel")?;
    data.files(200, SMALL)?;
    sidecar.start_load(load("b", data.path(), 1)).await?;
    has_jobs(cluster, data.path()).await?;
    let cancelling = cancel(&sidecar, "b").await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    let cancelled = sidecar.in_state("b", State::Cancelled).await?;
    assert_continues(&cancelling, &cancelled)?;
    assert_in_order(&cancelled)?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_eq!(sidecar.get_load("b").await?, cancelled, "a load that was cancelled stays as it is");
    sidecar.assert_no_errors()
}

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

/// Its command goes with it, and counts as one that failed.
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

/// Marsaglia's xorshift64: a seed that is printed gives the same moments again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test]
async fn killed_again_and_again() -> Result<()> {
    const ROUNDS: usize = 20;
    const LOADS: [&str; 3] = ["a", "b", "c"];
    let cluster = rough().await?;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64 | 1;
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    // The newest that was seen of every load that was acknowledged.
    let mut known = BTreeMap::<String, Load>::new();
    let mut paths = Vec::new();
    for id in LOADS {
        let data = cluster.data("crash-random")?;
        data.files(60, SMALL)?;
        known.insert(id.to_owned(), sidecar.start_load(load(id, data.path(), 1)).await?);
        paths.push(data.path().to_owned());
    }
    let mut seen_in = BTreeMap::<State, usize>::new();
    for round in 0..ROUNDS {
        // From before it is ready up to well into a load.
        let moment = Duration::from_millis(random.below(4000));
        let calling = async {
            for call in 0.. {
                let id = format!("round-{round}-{call}");
                if call < 2
                    && let Ok(started) = sidecar.start_load(load(&id, "/no/such/path", 1)).await
                {
                    known.insert(id, started);
                }
                for id in LOADS {
                    if let Ok(now) = sidecar.get_load(id).await {
                        assert_continues(&known[id], &now)?;
                        known.insert(id.to_owned(), now);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        if let Ok(failed) = tokio::time::timeout(moment, calling).await {
            failed?;
        }
        sidecar.kill9().await?;
        *seen_in.entry(known["a"].state()).or_default() += 1;
        sidecar.restart().await?;
        for (id, before) in &mut known {
            let now =
                sidecar.get_load(id).await.with_context(|| format!("acknowledged before round {round}"))?;
            assert_continues(before, &now).with_context(|| format!("round {round}"))?;
            *before = now;
        }
    }
    eprintln!("killed with the first load in {seen_in:?}; {} loads were acknowledged", known.len());
    for (id, path) in LOADS.iter().zip(&paths) {
        let loaded = sidecar.in_state(id, State::Loaded).await?;
        assert_continues(&known[*id], &loaded)?;
        assert_in_order(&loaded)?;
        assert_attempts(&loaded)?;
        cluster.oracle().assert_loaded(path, 1).await?;
        assert_nothing_works_on(cluster, path).await?;
    }
    for id in known.keys().filter(|id| id.starts_with("round")) {
        assert_eq!(sidecar.finished(id).await?.state(), State::Failed);
    }
    ensure!(sidecar.descendants()?.is_empty(), "children are left: {:?}", sidecar.descendants()?);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn terminated_while_loading() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) = loading(cluster, "terminate", Course { files: 200, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    let request = || WatchLoadRequest { load_id: "a".to_owned(), ..WatchLoadRequest::default() };
    let mut watch = sidecar.client()?.watch_load(request()).await?.into_inner();
    let before = watch.message().await?.context("the present state")?;
    // A client that holds a watch open and reads nothing.
    let unread = sidecar.client()?.watch_load(request()).await?;

    let stopped = tokio::time::timeout(STOP_LIMIT, sidecar.terminate()).await;
    assert_eq!(stopped.context("it does not stop")??, Exit::Code(0));
    assert_eq!(loaders(cluster, data.path()), []);
    let ended = loop {
        match watch.message().await {
            Ok(Some(load)) => ensure!(load.end_time.is_none(), "{load:?}"),
            Ok(None) => anyhow::bail!("the watch ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    drop(unread);

    sidecar.restart().await?;
    let loaded = STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    assert_continues(&before, &loaded)?;
    sidecar.assert_no_errors()
}

/// A stop does not wait for an Alluxio that is gone, whatever the sidecar has to clear up there.
#[tokio::test]
async fn terminated_while_alluxio_is_silent() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) =
        loading(cluster, "terminate-silent", Course { files: 100, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    sidecar.kill9().await?;

    let directory = sidecar.state_directory().to_owned();
    for cancelled in [false, true] {
        let mut alone = Setup::alone(cluster.sandbox()).state_directory(&directory).start().await?;
        if cancelled {
            cancel(&alone, "a").await?;
        }
        let stopped = tokio::time::timeout(STOP_LIMIT / 2, alone.terminate()).await;
        assert_eq!(stopped.context("it does not stop")??, Exit::Code(0));
    }
    sidecar.restart().await?;
    sidecar.in_state("a", State::Cancelled).await?;
    assert_nothing_works_on(cluster, data.path()).await
}
