//! Progress is true at every moment, while distributedLoad says nothing and while workers acknowledge blocks: on a
//! cluster of its own, because what others load at the same time makes an estimate of it.

use crate::history;
use crate::outcome::begin_with;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Load, Progress, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Options, Sidecar, http};
use std::time::{Duration, SystemTime};

/// For the command, and for the native engine, which is faster.
const FILES: usize = 1200;
const NATIVE_FILES: usize = 5000;
const SIZE: u64 = 16_000;

/// How much later than on the workers' disks a block may be known to the sidecar.
const LAG: Duration = Duration::from_secs(2);

/// Each job worker has one task at a time, which leaves some of the machine to the sidecar.
const TASKS: &str = "1";

/// A block being written is part of what its worker says it holds, and not yet among its files: one for each
/// task of two job workers, and as many that a worker caches after the task.
const BEING_WRITTEN: u64 = 4 * SIZE;

/// For the whole load.
const LIMIT: Duration = Duration::from_secs(240);

/// The sidecar's promise.
const MOST_OF_THE_TIME: f64 = 0.02;

/// One look at the disks.
struct Sample {
    begun: SystemTime,
    ended: SystemTime,
    bytes: u64,
}

/// Messages of WatchLoad in LOADING, each with bytes that no message before had, and the last of all.
async fn watch(sidecar: &Sidecar<'_>, id: &str, files: usize) -> Result<(Vec<(SystemTime, Progress)>, Load)> {
    let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
    let mut stream = sidecar.client()?.watch_load(request).await?.into_inner();
    let mut values: Vec<(SystemTime, Progress)> = Vec::new();
    let mut last = None;
    while let Some(load) = stream.message().await? {
        let progress = load.progress.context("the progress")?;
        let seen = values.last().map_or(0, |(_, progress)| progress.bytes_cached);
        if load.state() == State::Loading {
            ensure!(progress.bytes_cached >= seen, "{} bytes after {seen}", progress.bytes_cached);
            ensure!(progress.totals_exact && progress.bytes_total == files as u64 * SIZE, "{progress:?}");
            if progress.bytes_cached > seen {
                values.push((history::at(load.update_time)?, progress));
            }
        }
        last = Some(load);
    }
    Ok((values, last.context("a message")?))
}

async fn time_of_calls(sidecar: &Sidecar<'_>) -> Result<Duration> {
    let (_, text) = http::get(sidecar.admin_address(), "/metrics").await?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("preload_progress_call_seconds_total "));
    Ok(Duration::from_secs_f64(seconds.context("the counter")?.trim().parse()?))
}

/// Loads a fresh directory, and compares all that is said meanwhile with the disks. Gives the number of
/// different figures for the bytes cached.
async fn load_and_compare(
    cluster: &Cluster,
    sidecar: &Sidecar<'_>,
    engine: Engine,
    id: &str,
) -> Result<usize> {
    let data = cluster.data("progress")?;
    let files = if engine == Engine::Native { NATIVE_FILES } else { FILES };
    data.files(files, SIZE)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let calls_before = time_of_calls(sidecar).await?;
    begin_with(sidecar, engine, id, data.path(), 1).await?;

    let mut samples = Vec::new();
    let mut sample = || -> Result<()> {
        let begun = SystemTime::now();
        let bytes = tree.copies()?.bytes(1);
        samples.push(Sample { begun, ended: SystemTime::now(), bytes });
        Ok(())
    };
    let sampling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            if let Err(error) = sample() {
                return error;
            }
        }
    };
    let (values, end) = tokio::select! {
        watched = tokio::time::timeout(LIMIT, watch(sidecar, id, files)) => watched.context("the load hangs")??,
        error = sampling => return Err(error),
    };
    sample()?;
    ensure!(end.state() == State::Loaded && end.engine() == engine, "{end:?}");
    history::assert_complete(&end)?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;

    for (time, progress) in &values {
        let before = samples.iter().rfind(|sample| sample.ended + LAG <= *time).map_or(0, |s| s.bytes);
        let after = samples.iter().find(|sample| sample.begun >= *time).context("a later sample")?.bytes;
        let said = progress.bytes_cached;
        // What a worker has acknowledged it has written.
        let written = if engine == Engine::Native { 0 } else { BEING_WRITTEN };
        ensure!(
            before <= said && said <= after + written,
            "{said} bytes were said to be cached; {before} were on the disks {LAG:?} before, {after} soon after"
        );
    }
    let loading = history::time_in(&end, State::Loading)?;
    let calls = time_of_calls(sidecar).await? - calls_before;
    eprintln!("{} figures in {loading:?} of loading, calls took {calls:?}", values.len());
    if engine == Engine::Native {
        return Ok(values.len());
    }
    ensure!(loading >= Duration::from_secs(10), "too short to tell: {loading:?}");
    ensure!(calls.as_secs_f64() <= MOST_OF_THE_TIME * loading.as_secs_f64(), "{calls:?} in {loading:?}");
    Ok(values.len())
}

#[tokio::test]
async fn progress_is_true_and_cheap_while_the_command_is_silent() -> Result<()> {
    let properties = vec![("alluxio.job.worker.threadpool.size".to_owned(), TASKS.to_owned())];
    let cluster = Cluster::start(Options { properties, ..Options::default() }).await?;
    let sidecar = Sidecar::start(&cluster, &[] as &[&str]).await?;
    // Truth and price hold for every load. Ten figures within the price need calls of some milliseconds,
    // which a machine that is busy with something else may not give in one load, but in one of three.
    let mut figures = Vec::new();
    for id in ["first", "second", "third"] {
        figures.push(load_and_compare(&cluster, &sidecar, Engine::DistributedLoad, id).await?);
        if figures.last() >= Some(&10) {
            break;
        }
    }
    ensure!(figures.last() >= Some(&10), "too few figures: {figures:?}");
    sidecar.assert_quiet()?;
    drop(sidecar);
    cluster.stop()
}

#[tokio::test]
async fn progress_of_a_native_load_is_what_was_acknowledged() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let sidecar = Sidecar::start(&cluster, &[] as &[&str]).await?;
    let figures = load_and_compare(&cluster, &sidecar, Engine::Native, "native").await?;
    ensure!(figures >= 4, "too few figures: {figures}");
    sidecar.assert_quiet()?;
    drop(sidecar);
    cluster.stop()
}
