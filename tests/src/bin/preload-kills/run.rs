//! One load, with a worker or the sidecar killed in the middle of it.

use crate::follow::{Seen, follow, until};
use crate::judge::judge;
use crate::plan::{Kill, Moment, Plan};
use alluxio_preload_api::client::{Client, ClientConfig, WatchOptions};
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use preload_tests::oracle::Verdict;
use preload_tests::stage::Stage;
use preload_tests::{Cluster, Data, Role, Sidecar, entered, load};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Several attempts, each with a JVM, and a worker that comes back late.
const LIMIT: Duration = Duration::from_secs(400);

/// What was killed, and when.
#[derive(Debug, Clone)]
pub(crate) struct Killed {
    pub(crate) who: Who,
    /// What WatchLoad had said last.
    pub(crate) state: State,
    pub(crate) since_start: Duration,
    /// It lived then.
    pub(crate) before: SystemTime,
    /// It was dead then.
    pub(crate) after: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Worker(usize),
    Sidecar,
}

#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) killed: Vec<Killed>,
    pub(crate) end: End,
    pub(crate) seconds: f64,
    /// Everything that is known, for a run that went wrong.
    pub(crate) details: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Loaded(Verdict),
    /// LOADED before anything was killed.
    TooEarly(Verdict),
    /// FAILED or CANCELLED, and why.
    Failed(String),
    Stuck(String),
}

impl End {
    pub(crate) fn is_wrong(&self) -> bool {
        matches!(self, Self::Stuck(_) | Self::Loaded(Verdict::False(_)) | Self::TooEarly(Verdict::False(_)))
    }
}

/// `usual`: how long such a load takes when nothing is killed.
pub(crate) async fn run(
    stage: &mut Stage<'_>,
    sidecar: &mut Sidecar<'_>,
    plan: &Plan,
    usual: Duration,
) -> Result<Outcome> {
    stage.begin_run().await?;
    let data = stage.data(plan.files)?;
    let cluster = stage.cluster;
    let id = data.path().trim_start_matches('/').replace('/', "-");
    // By the oracle's route: it makes Alluxio load the metadata.
    let known = if plan.cold { None } else { Some(cluster.oracle().tree(data.path()).await?) };
    let client = Client::new(ClientConfig::new(sidecar.address().parse()?))?;
    let mut request = load(&id, data.path(), plan.replicas);
    if let Some(spec) = &mut request.spec {
        spec.set_engine(plan.engine);
    }
    let begun = Instant::now();
    client.start_load(request).await.context("StartLoad")?;
    let (sender, seen) = watch::channel(Seen::default());
    let watch = client.watch_load(&id, WatchOptions::default());
    let killed = Mutex::new(Vec::new());
    let killer = Killer { cluster, plan, begun, usual, seen: seen.clone(), killed: &killed };

    let judging = async {
        let mut seen = seen.clone();
        until(&mut seen, Seen::is_listed).await;
        let known = match known {
            Some(tree) => Ok(tree),
            None => cluster.oracle().tree(data.path()).await,
        };
        until(&mut seen, Seen::is_over).await;
        let (disks, alive) = (cluster.oracle().disks(), cluster.registered_workers());
        let last = seen.borrow().clone();
        let kills = killed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last.load {
            Some(load) if load.state() == State::Loaded => {
                judge(&load, &known?, &disks?, &alive?, plan.files, &kills).map(Some)
            }
            _ => Ok(None),
        }
    };
    let (followed, kills, verdict) = tokio::join!(follow(watch, sender, LIMIT), killer.run(sidecar), judging);
    kills.context("kill and start again")?;
    let last = seen.borrow().clone();
    let killed = killed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdict = verdict.context("look at the disks")?;
    let end = end(&last, followed, verdict, &killed);
    if matches!(end, End::Stuck(_)) {
        client.cancel_load(&id).await.context("CancelLoad")?;
        sidecar.finished(&id).await.context("cancel what is stuck")?;
    }
    let seconds = last.ended.map_or(LIMIT, |ended| ended - begun).as_secs_f64();
    let details = details(plan, &data, &last, &killed, &end, sidecar, cluster);
    Ok(Outcome { plan: plan.clone(), killed, end, seconds, details })
}

fn end(last: &Seen, followed: Result<()>, verdict: Option<Verdict>, killed: &[Killed]) -> End {
    let Some(load) = last.load.as_ref().filter(|_| last.is_over()) else {
        let error = followed.err().map(|error| format!("{error:#}")).unwrap_or_default();
        return End::Stuck(format!("{:?}: {error}", last.state()));
    };
    let Some(verdict) = verdict else {
        return End::Failed(format!("{:?}, {:?}: {}", load.state(), load.reason(), load.message));
    };
    // Our word of it came a moment later.
    let said = entered(load, State::Loaded).unwrap_or(SystemTime::UNIX_EPOCH);
    match killed.iter().any(|kill| kill.before < said) {
        true => End::Loaded(verdict),
        false => End::TooEarly(verdict),
    }
}

fn details(
    plan: &Plan,
    data: &Data,
    last: &Seen,
    killed: &[Killed],
    end: &End,
    sidecar: &Sidecar<'_>,
    cluster: &Cluster,
) -> String {
    format!(
        "{end:#?}\n\n{plan:#?}\n\n{}\n\n{killed:#?}\n\n{:#?}\n\n{}\n\n{}\n",
        data.path(),
        last.load,
        sidecar.log_end(),
        cluster.log_excerpt()
    )
}

struct Killer<'a> {
    cluster: &'a Cluster,
    plan: &'a Plan,
    begun: Instant,
    usual: Duration,
    seen: watch::Receiver<Seen>,
    killed: &'a Mutex<Vec<Killed>>,
}

impl Killer<'_> {
    /// Kills, and starts again, unless the load has ended before.
    async fn run(mut self, sidecar: &mut Sidecar<'_>) -> Result<()> {
        match self.plan.moment {
            Moment::Part(part) => self.pause(self.usual.mul_f64(part)).await,
            Moment::In(state, rest) => {
                until(&mut self.seen, |seen| seen.state() == state).await;
                self.pause(rest).await;
            }
        }
        let (worker, servant) = (self.worker(), self.sidecar(sidecar));
        let (worker, sidecar) = tokio::join!(worker, servant);
        worker.and(sidecar)
    }

    /// Ends with the load.
    async fn pause(&self, pause: Duration) {
        let mut seen = self.seen.clone();
        let over = until(&mut seen, |_| false);
        // Either: which one it was, `is_over` tells.
        let _ = tokio::time::timeout(pause, over).await;
    }

    async fn worker(&self) -> Result<()> {
        let Some(Kill { after, away }) = self.plan.worker else { return Ok(()) };
        let role = Role::Worker(self.plan.victim);
        self.pause(after).await;
        let Some((state, before)) = self.still() else { return Ok(()) };
        self.cluster.kill(role, Signal::SIGKILL).await?;
        self.record(Who::Worker(self.plan.victim), state, before);
        tokio::time::sleep(away).await;
        self.cluster.start_role(role).await
    }

    async fn sidecar(&self, sidecar: &mut Sidecar<'_>) -> Result<()> {
        let Some(Kill { after, away }) = self.plan.sidecar else { return Ok(()) };
        self.pause(after).await;
        let Some((state, before)) = self.still() else { return Ok(()) };
        sidecar.kill9().await?;
        self.record(Who::Sidecar, state, before);
        tokio::time::sleep(away).await;
        sidecar.restart().await
    }

    /// The state that was heard of last, and the time, unless the load has ended.
    fn still(&self) -> Option<(State, SystemTime)> {
        let seen = self.seen.borrow();
        (!seen.is_over()).then(|| (seen.state(), SystemTime::now()))
    }

    fn record(&self, who: Who, state: State, before: SystemTime) {
        let after = SystemTime::now();
        let since_start = self.begun.elapsed();
        let killed = Killed { who, state, since_start, before, after };
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).push(killed);
    }
}
