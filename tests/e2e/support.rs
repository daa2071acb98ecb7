//! What the tests of faults share: watching closely, and finding what a load may leave behind.

use alluxio_client::{Client, Config, Job, JobStatus};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::{CancelLoadRequest, Load, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::processes::{self, Process};
use preload_tests::{Cluster, MIB, Options, Sidecar, leash, wait};
use tokio::sync::OnceCell;
use tonic::{Response, Status};

/// A cluster for tests that kill commands of Alluxio while they submit. That is no good manners: now and then
/// the job master's own connection dies with the caller's, and it fails the next command or two ("Channel ... is
/// not authenticated"). Its job workers do one task at a time, so that a command has jobs under way long after
/// it submitted the last.
pub(crate) async fn rough() -> Result<&'static Cluster> {
    static ROUGH: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    let properties = vec![("alluxio.job.worker.threadpool.size".to_owned(), "1".to_owned())];
    let options = Options { properties, worker_quota: 1024 * MIB, ..Options::default() };
    let cluster =
        ROUGH.get_or_init(async || Cluster::start(options).await.map_err(|e| format!("{e:#}"))).await;
    cluster.as_ref().map_err(|error| anyhow::anyhow!("the rough cluster did not start: {error}"))
}

/// The first message of WatchLoad for which `condition` holds, as soon as it is published.
pub(crate) async fn watch_until(
    sidecar: &Sidecar<'_>,
    id: &str,
    condition: impl Fn(&Load) -> bool,
) -> Result<Load> {
    let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
    let watching = async {
        let mut stream = sidecar.client()?.watch_load(request).await.context("WatchLoad")?.into_inner();
        let mut last = None;
        while let Some(load) = stream.message().await.context("WatchLoad")? {
            if condition(&load) {
                return Ok(load);
            }
            last = Some(load);
        }
        anyhow::bail!("the watch of {id} ended, last with {last:?}")
    };
    tokio::time::timeout(wait::LIMIT, watching).await.with_context(|| format!("a watch of load {id}"))?
}

/// CancelLoad.
pub(crate) async fn cancel(sidecar: &Sidecar<'_>, id: &str) -> Result<Load> {
    let request = CancelLoadRequest { load_id: id.to_owned() };
    let answer: Result<Response<Load>, Status> = sidecar.client()?.cancel_load(request).await;
    Ok(answer.context("CancelLoad")?.into_inner())
}

/// The status with which a call was refused.
pub(crate) fn status_of<T>(called: Result<T>) -> Result<Status> {
    let error = called.err().context("the call was not refused")?;
    error.downcast::<Status>().context("no status")
}

/// Changes of state, as `[(from, to), ...]`.
pub(crate) fn changes(load: &Load) -> Vec<(State, State)> {
    load.transitions.iter().map(|transition| (transition.from(), transition.to())).collect()
}

/// Fails if a restart, a repair or a command that submitted nothing counted as an attempt: only a run of the
/// engine that did its work, which was not enough, makes another.
pub(crate) fn assert_attempts(load: &Load) -> Result<()> {
    let (mut attempts, mut ended) = (0, false);
    for change in &load.transitions {
        match (change.from(), change.to()) {
            (_, State::Loading) => {
                let same = ["goes on", "loading what distributedLoad left undone"]
                    .iter()
                    .any(|word| change.message.contains(word));
                attempts += u32::from(attempts == 0 || (ended && !same));
                ended = false;
            }
            (State::Loading, State::Verifying) => ended = true,
            (_, State::Waiting) if change.message.contains("was restarted") => ended = false,
            _ => {}
        }
    }
    // Older changes may be forgotten.
    ensure!(load.transitions.len() == 16 || load.attempt == attempts, "{attempts} attempts, but: {load:?}");
    Ok(())
}

/// Fails unless the sequence numbers of the changes only grow, up to that of the load.
pub(crate) fn assert_in_order(load: &Load) -> Result<()> {
    let mut sequences: Vec<_> = load.transitions.iter().map(|transition| transition.sequence).collect();
    sequences.push(load.sequence);
    let sorted = sequences.is_sorted_by(|a, b| a < b) || {
        // Nothing has changed since the last transition.
        let (last, before) = (sequences.pop(), &sequences);
        before.is_sorted_by(|a, b| a < b) && before.last().copied() == last
    };
    ensure!(sorted, "sequence numbers went back: {load:?}");
    Ok(())
}

/// Alluxio's job service, by a client of our own.
pub(crate) fn job_service(cluster: &Cluster) -> Client {
    Client::new(Config {
        masters: vec![cluster.master_address()],
        job_masters: vec![cluster.job_master_address()],
        ..Config::default()
    })
}

/// Jobs on `path`, or below it, that are CREATED or RUNNING.
pub(crate) async fn live_jobs(cluster: &Cluster, path: &str) -> Result<Vec<Job>> {
    let mut jobs = job_service(cluster).jobs(&[JobStatus::Created, JobStatus::Running]).await?;
    let below = format!("{path}/");
    jobs.retain(|job| job.affected_paths.iter().any(|p| p == path || p.starts_with(&below)));
    Ok(jobs)
}

/// Supervisors, launchers and JVMs that load exactly `path`, whoever started them; no leashes of the harness.
pub(crate) fn loaders(cluster: &Cluster, path: &str) -> Vec<Process> {
    let directory = cluster.sandbox().directory().display().to_string();
    let ours = |process: &Process| {
        let program = process.command.split(' ').next().unwrap_or_default();
        process.command.ends_with(&format!(" {path}"))
            && process.command.contains(&directory)
            && !program.ends_with(leash::PROGRAM)
    };
    processes::all().into_iter().filter(ours).collect()
}

/// Fails unless nothing works on `path` at this moment: no process and no job.
pub(crate) async fn assert_nothing_works_on(cluster: &Cluster, path: &str) -> Result<()> {
    let loaders = loaders(cluster, path);
    ensure!(loaders.is_empty(), "processes are left: {loaders:?}");
    let jobs = live_jobs(cluster, path).await?;
    ensure!(jobs.is_empty(), "{} jobs are left, such as {:?}", jobs.len(), jobs.first());
    Ok(())
}

/// Takes files out of the cache, until the master knows that they are gone.
pub(crate) async fn free(cluster: &Cluster, paths: &[String]) -> Result<()> {
    for path in paths {
        cluster.alluxio(&["fs", "free", "-f", path]).await?.success()?;
    }
    let client = job_service(cluster);
    wait::until("the files to leave the cache", wait::LIMIT, async || {
        for path in paths {
            let file = client.status(path).await?;
            ensure!(file.blocks.iter().all(|block| block.workers.is_empty()), "{path} is cached: {file:?}");
        }
        Ok(Some(()))
    })
    .await
}
