//! What the clients cannot see: the disks at the moment of a LOADED, and what runs on this machine.

use super::clock::MovedClock;
use super::history::What;
use super::record::Record;
use crate::cluster::{Cluster, Role};
use crate::oracle::Disks;
use crate::processes::{self, Process};
use crate::{entered, leash};
use alluxio_client::{Client, Config, Job, JobStatus};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{Load, WatchLoadRequest};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Before a watch is opened again.
const AGAIN: Duration = Duration::from_millis(50);

/// Processes that were killed, and when they were surely dead: not yet, while the kill is under way.
#[derive(Debug, Default)]
pub struct Deaths(Mutex<Vec<(Role, Option<SystemTime>)>>);

impl Deaths {
    /// Before the kill; gives its number.
    pub fn begin(&self, role: Role) -> usize {
        let mut deaths = self.lock();
        deaths.push((role, None));
        deaths.len() - 1
    }

    /// It is dead.
    pub fn end(&self, number: usize) {
        if let Some(death) = self.lock().get_mut(number) {
            death.1 = Some(SystemTime::now());
        }
    }

    fn since(&self, time: SystemTime) -> BTreeSet<Role> {
        let deaths = self.lock();
        deaths.iter().filter(|(_, at)| at.is_none_or(|at| at >= time)).map(|(role, _)| *role).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Role, Option<SystemTime>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers when LOADED was heard first.
#[derive(Debug)]
pub struct Evidence {
    pub disks: Disks,
    pub alive: BTreeSet<usize>,
    /// Since the verification began.
    pub died: BTreeSet<usize>,
    /// Copies that were wished for.
    pub replicas: usize,
}

/// Waits for LOADED on a way of its own to the sidecar, and looks at the disks at once. `None` when the run is over
/// before. Deaths since the verification began excuse a missing block; the sidecar's clock may be moved.
pub async fn hear_loaded(
    cluster: &Cluster,
    address: &str,
    id: &str,
    deaths: &Deaths,
    clock: &MovedClock,
    mut over: watch::Receiver<bool>,
) -> Result<Option<Evidence>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let mut client = PreloadServiceClient::new(endpoint.connect_lazy());
    let heard = async {
        loop {
            if let Some(load) = loaded(&mut client, id).await {
                return load;
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let load = tokio::select! {
        load = heard => load,
        _ = over.wait_for(|over| *over) => return Ok(None),
    };
    let (disks, mut alive) = (cluster.oracle().disks()?, cluster.registered_workers()?);
    let began = entered(&load, State::Verifying).and_then(|shown| clock.earliest(shown));
    let died = deaths.since(began.unwrap_or(SystemTime::UNIX_EPOCH));
    let workers = |roles: Vec<Role>| {
        roles.into_iter().filter_map(|role| if let Role::Worker(worker) = role { Some(worker) } else { None })
    };
    if died.contains(&Role::Master) {
        // Nobody is registered with the new one at first.
        alive.extend(workers(cluster.pids().into_keys().collect()));
    }
    let died = workers(died.into_iter().collect()).collect();
    let replicas = load.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) as usize;
    Ok(Some(Evidence { disks, alive, died, replicas }))
}

/// The first LOADED of one stream; `None` where it breaks or ends otherwise.
async fn loaded(client: &mut PreloadServiceClient<Channel>, id: &str) -> Option<Load> {
    let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
    let mut stream = client.watch_load(request).await.ok()?.into_inner();
    while let Some(load) = stream.message().await.ok()? {
        if load.state() == State::Loaded {
            return Some(load);
        }
    }
    None
}

/// Looks for two commands that load the same path, until the run is over.
pub async fn watch_commands(
    cluster: &Cluster,
    paths: &[String],
    record: &Record,
    mut over: watch::Receiver<bool>,
) {
    while !*over.borrow() {
        let all = processes::all();
        for path in paths {
            let commands = commands_for(cluster, &all, path);
            if commands.len() > 1 {
                let commands = commands.iter().map(|process| format!("{process:?}")).collect();
                record.add(record.now(), What::TwoCommands { path: path.clone(), commands });
            }
        }
        // Either way we look again.
        let _ = tokio::time::timeout(LOOK_EVERY, over.wait_for(|over| *over)).await;
    }
}

/// JVMs that load exactly this path.
fn commands_for<'a>(cluster: &Cluster, all: &'a [Process], path: &str) -> Vec<&'a Process> {
    let directory = cluster.sandbox().directory().display().to_string();
    let of_path = |process: &&Process| {
        process.command.contains(" alluxio.cli.")
            && process.command.contains(&directory)
            && process.command.ends_with(&format!(" {path}"))
    };
    all.iter().filter(of_path).collect()
}

/// Whatever still works on one of the paths: JVMs, supervisors, launchers. Not the harness's own leashes.
pub fn processes_on(cluster: &Cluster, paths: &[String]) -> BTreeMap<u32, String> {
    let directory = cluster.sandbox().directory().display().to_string();
    let ours = |process: &Process| {
        let program = process.command.split(' ').next().unwrap_or_default();
        process.command.contains(&directory)
            && !program.ends_with(leash::PROGRAM)
            && paths.iter().any(|path| process.command.ends_with(&format!(" {path}")))
    };
    processes::all().into_iter().filter(ours).map(|process| (process.pid, process.command)).collect()
}

/// Jobs of Alluxio's job service that still work below one of the paths.
pub async fn live_jobs(cluster: &Cluster, paths: &[String]) -> Result<Vec<Job>> {
    let client = Client::new(Config {
        masters: vec![cluster.master_address()],
        job_masters: vec![cluster.job_master_address()],
        ..Config::default()
    });
    let mut jobs = client.jobs(&[JobStatus::Created, JobStatus::Running]).await?;
    let below = |path: &String| {
        paths
            .iter()
            .any(|of| path == of || path.strip_prefix(of.as_str()).is_some_and(|rest| rest.starts_with('/')))
    };
    jobs.retain(|job| job.affected_paths.iter().any(below));
    Ok(jobs)
}
