//! One run: data, a fresh sidecar, clients, nemesis, rest, and the verdict.

use super::client::Caller;
use super::clock::{self, MovedClock};
use super::contract::{Violation, check};
use super::history::{History, What};
use super::nemesis::{Links, Victims};
use super::plan::{Plan, Wish};
use super::record::Record;
use super::witness::{self, Deaths, Evidence};
use crate::cluster::Cluster;
use crate::data::Data;
use crate::leash::Exit;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::sidecar::{Setup, Sidecar};
use crate::small_disk::SmallDisk;
use crate::stage::Stage;
use crate::wait;
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::{LoadSpec, StartLoadRequest};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

const CALLERS: u64 = 3;
/// Runs between two cleanings of the cache.
const BATCH: usize = 4;
/// For a load to be taken once everything is mended: the sidecar may just be starting.
const TAKE_LIMIT: Duration = Duration::from_secs(60);
/// For all loads to end once everything is mended: several attempts, each with a JVM.
const SETTLE_LIMIT: Duration = Duration::from_secs(400);
/// For calls that were given up to arrive, once everything is mended.
const LATE: Duration = Duration::from_secs(1);
/// For watches to end once the loads have.
const WATCH_LIMIT: Duration = Duration::from_secs(30);
/// For what a load had left to go once it has ended.
const LEFT_LIMIT: Duration = Duration::from_secs(30);

/// The place of many runs.
#[derive(Debug)]
pub struct Torture<'a> {
    cluster: &'a Cluster,
    disk: &'a SmallDisk,
    stage: Stage<'a>,
    links: Links,
    /// Of the sidecar itself.
    listen: String,
    clock: MovedClock,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub history: History,
    pub violations: Vec<Violation>,
    /// The last of each load.
    pub ends: Vec<(State, Reason)>,
    pub seconds: f64,
    /// The sidecar's.
    pub log: String,
}

impl<'a> Torture<'a> {
    pub async fn set(cluster: &'a Cluster, disk: &'a SmallDisk) -> Result<Self> {
        let sandbox = cluster.sandbox();
        let listen = sandbox.free_address();
        let links = Links {
            clients: Proxy::start(sandbox.free_address(), &listen).await?,
            master: Proxy::start(sandbox.free_address(), &cluster.master_address()).await?,
            job_master: Proxy::start(sandbox.free_address(), &cluster.job_master_address()).await?,
        };
        let clock = MovedClock::new(sandbox.directory().join("clock"))?;
        Ok(Self { cluster, disk, stage: Stage::set(cluster, BATCH)?, links, listen, clock })
    }

    /// Errors are of the harness; what the sidecar did wrong is in the outcome.
    pub async fn run(&mut self, plan: Plan) -> Result<Outcome> {
        let begun = Instant::now();
        let scene = Scene::make(self, &plan).await?;
        let state = self.disk.path().join(format!("state-{}-{}", plan.seed, plan.number));
        self.clock.move_by(0)?;
        let mut sidecar = Setup::new(self.cluster)
            .quiet()
            .program(clock::PROGRAM)
            .environment(clock::VARIABLE, self.clock.file())
            .masters(self.links.master.address(), self.links.job_master.address())
            .listen(&self.listen)
            // A command whose job master or worker was killed may wait for ever.
            .argument("--stall-after=20s")
            .state_directory(&state)
            .start()
            .await?;
        let record = Arc::new(Record::begin());
        let played = self.play(&plan, &scene, &record, &mut sidecar).await;
        let evidence = played.with_context(|| sidecar.log_end())?;
        scene.judge(self.cluster, evidence, &record).await?;
        self.look_for_left(&scene.paths(), &mut sidecar, &record).await?;
        let log = sidecar.log();
        drop(sidecar);
        fs::remove_dir_all(&state).context("remove the state directory")?;

        let history = record.history();
        let ends = scene.ends(&history);
        let violations = check(&history);
        Ok(Outcome { plan, history, violations, ends, seconds: begun.elapsed().as_secs_f64(), log })
    }

    /// Clients and nemesis, then rest.
    async fn play(
        &self,
        plan: &Plan,
        scene: &Scene,
        record: &Arc<Record>,
        sidecar: &mut Sidecar<'a>,
    ) -> Result<Vec<Option<Evidence>>> {
        let (stop, stopped) = watch::channel(false);
        let (over, is_over) = watch::channel(false);
        let deaths = Deaths::default();
        let victims = Victims {
            cluster: self.cluster,
            disk: self.disk,
            clock: &self.clock,
            links: &self.links,
            record,
            deaths: &deaths,
        };
        let streams = Arc::<AtomicU64>::default();
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let caller = Caller::new(self.links.clients.address(), record.clone(), streams.clone())?;
            // Not the numbers of runs.
            let random = Random::new(plan.seed, plan.number.wrapping_mul(1000) + number + 1);
            let calls = scene.calls.clone();
            callers.spawn(caller.call_at_random(random, calls, stopped.clone(), is_over.clone()));
        }
        let hearing = scene.ids.iter().map(|id| {
            witness::hear_loaded(self.cluster, &self.listen, id, &deaths, &self.clock, is_over.clone())
        });
        let paths = scene.paths();
        let watching = witness::watch_commands(self.cluster, &paths, record, is_over.clone());
        let [ours, theirs] = &plan.lanes;
        let script = async {
            let (ours, theirs) =
                tokio::join!(victims.suffer(ours, Some(sidecar)), victims.suffer(theirs, None));
            stop.send_replace(true);
            let mut watches = Vec::new();
            while let Some(ended) = callers.join_next().await {
                watches.push(ended.context("a caller")?);
            }
            ours.and(theirs).context("the nemesis")?;
            self.settle(scene, record).await?;
            anyhow::Ok(watches)
        };
        let script = async {
            let played = script.await;
            over.send_replace(true);
            played
        };
        let (watches, heard, ()) = tokio::join!(script, join_all(hearing), watching);
        for watches in watches? {
            all_end(watches, record).await?;
        }
        heard.into_iter().collect()
    }

    /// Asks for all loads once more, waits for them to end, and writes down how they did.
    async fn settle(&self, scene: &Scene, record: &Arc<Record>) -> Result<()> {
        let last = Caller::new(self.links.clients.address(), record.clone(), Arc::default())?;
        for request in scene.calls.iter() {
            let taken = wait::until("a load to be taken", TAKE_LIMIT, async || {
                match last.start(request.clone()).await {
                    Err(refusal) if refusal.code != Code::AlreadyExists => anyhow::bail!("{refusal}"),
                    Ok(_) | Err(_) => Ok(Some(())),
                }
            });
            // What is not taken is the contract's affair.
            let _ = taken.await;
        }
        // Nobody needs these answers.
        let patient = Caller::new(&self.listen, Arc::new(Record::begin()), Arc::default())?;
        let mut ended = (Instant::now(), BTreeSet::new());
        let all = wait::until("all loads to end", SETTLE_LIMIT, async || {
            let loads = patient.list().await.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            let live = loads.iter().find(|load| !is_terminal(load.state(), false));
            let ids: BTreeSet<_> = loads.iter().map(|load| load.id.clone()).collect();
            if live.is_some() || ids != ended.1 {
                ended = (Instant::now(), ids);
            }
            anyhow::ensure!(live.is_none(), "{live:?}");
            // A StartLoad that nobody waits for any more may come late.
            Ok((ended.0.elapsed() > LATE).then_some(()))
        });
        // What has not ended is the contract's affair.
        let _ = all.await;
        record.settle();
        let known: BTreeSet<String> = match last.list().await {
            Ok(loads) => loads.into_iter().map(|load| load.id).collect(),
            Err(_) => BTreeSet::new(),
        };
        let seen: BTreeSet<String> = record.history().events.iter().flat_map(|event| event.ids()).collect();
        for id in known.union(&seen) {
            // Recorded.
            let _ = last.get(id).await;
        }
        Ok(())
    }

    /// Processes and jobs that work for nobody, a panic, and a sidecar that does not end.
    async fn look_for_left(
        &self,
        paths: &[String],
        sidecar: &mut Sidecar<'_>,
        record: &Record,
    ) -> Result<()> {
        let gone = wait::until("everything to be gone", LEFT_LIMIT, async || {
            let (processes, children) = (witness::processes_on(self.cluster, paths), sidecar.descendants()?);
            let jobs = witness::live_jobs(self.cluster, paths).await?;
            anyhow::ensure!(
                processes.is_empty() && children.is_empty() && jobs.is_empty(),
                "{processes:?} {children:?} {jobs:?}"
            );
            Ok(Some(()))
        });
        if let Err(error) = gone.await {
            record.add(record.now(), What::Left(format!("{error:#}")));
        }
        if let Some(line) = sidecar.log().lines().find(|line| line.contains("panicked at")) {
            record.add(record.now(), What::Left(line.to_owned()));
        }
        let exit = sidecar.terminate().await?;
        if exit != Exit::Code(0) {
            record.add(record.now(), What::Left(format!("the sidecar ended with {exit:?}")));
        }
        Ok(())
    }
}

/// Waits for watches to end by themselves, as all loads have.
async fn all_end(mut watches: JoinSet<()>, record: &Record) -> Result<()> {
    let ended = async {
        while let Some(ended) = watches.join_next().await {
            ended.context("a watch")?;
        }
        anyhow::Ok(())
    };
    if let Ok(ended) = tokio::time::timeout(WATCH_LIMIT, ended).await {
        return ended;
    }
    record.add(record.now(), What::Left(format!("{} watches that do not end", watches.len())));
    Ok(())
}

/// The data of a run, and what may be asked of it.
struct Scene {
    wishes: Vec<(Wish, Data)>,
    ids: Vec<String>,
    /// What clients draw from.
    calls: Arc<Vec<StartLoadRequest>>,
}

impl Scene {
    async fn make(torture: &mut Torture<'_>, plan: &Plan) -> Result<Self> {
        torture.stage.begin_run().await?;
        let (mut wishes, mut ids, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for (number, wish) in plan.wishes.iter().enumerate() {
            let data = torture.stage.data(wish.files)?;
            if !wish.cold {
                // By the oracle's route: it makes Alluxio load the metadata.
                torture.cluster.oracle().tree(data.path()).await?;
            }
            let id = format!("load-{number}");
            calls.push(request(&id, data.path(), wish.engine, wish.replicas));
            if number == 0 {
                // Somebody else wants the same id for another wish.
                calls.push(request(&id, data.path(), wish.engine, wish.replicas + 1));
            }
            ids.push(id);
            wishes.push((wish.clone(), data));
        }
        Ok(Self { wishes, ids, calls: Arc::new(calls) })
    }

    fn paths(&self) -> Vec<String> {
        self.wishes.iter().map(|(_, data)| data.path().to_owned()).collect()
    }

    /// Compares the disks as they were with what had to be on them.
    async fn judge(&self, cluster: &Cluster, heard: Vec<Option<Evidence>>, record: &Record) -> Result<()> {
        for ((id, (wish, data)), evidence) in self.ids.iter().zip(&self.wishes).zip(heard) {
            let Some(evidence) = evidence else { continue };
            let tree = cluster.oracle().tree(data.path()).await?;
            let Evidence { disks, alive, died, replicas } = evidence;
            let verdict = tree.judge(&disks, wish.files, replicas, &alive, &died)?;
            record.add(record.now(), What::Disk { id: id.clone(), verdict });
        }
        Ok(())
    }

    /// The last state of each load that is known.
    fn ends(&self, history: &History) -> Vec<(State, Reason)> {
        let last = |id: &String| {
            history.events.iter().rev().find_map(|event| match &event.what {
                What::Get { id: other, answer: Ok(load) } if other == id => {
                    Some((load.state(), load.reason()))
                }
                _ => None,
            })
        };
        self.ids.iter().filter_map(last).collect()
    }
}

fn request(
    id: &str,
    path: &str,
    engine: alluxio_preload_api::v1::load_spec::Engine,
    replicas: u32,
) -> StartLoadRequest {
    let mut spec = LoadSpec { path: path.to_owned(), replicas: Some(replicas), ..LoadSpec::default() };
    spec.set_engine(engine);
    StartLoadRequest { load_id: id.to_owned(), spec: Some(spec) }
}
