//! Progress while distributedLoad says nothing: on a cluster of its own, because what others load at the
//! same time makes an estimate of it.

use crate::history;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::{Load, Progress, WatchLoadRequest};
use anyhow::{Context, Result};
use preload_tests::{Cluster, Options, Sidecar, http, load};
use std::time::{Duration, SystemTime};

const FILES: usize = 1000;
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
async fn watch(sidecar: &Sidecar<'_>) -> Result<(Vec<(SystemTime, Progress)>, Load)> {
    let request = WatchLoadRequest { load_id: "a".to_owned(), ..WatchLoadRequest::default() };
    let mut stream = sidecar.client()?.watch_load(request).await?.into_inner();
    let mut values: Vec<(SystemTime, Progress)> = Vec::new();
    let mut last = None;
    while let Some(load) = stream.message().await? {
        let progress = load.progress.context("the progress")?;
        let seen = values.last().map_or(0, |(_, progress)| progress.bytes_cached);
        if load.state() == State::Loading {
            assert!(progress.bytes_cached >= seen, "{} bytes after {seen}", progress.bytes_cached);
            assert!(progress.totals_exact);
            assert_eq!(progress.bytes_total, FILES as u64 * SIZE);
            if progress.bytes_cached > seen {
                values.push((history::at(load.update_time)?, progress));
            }
        }
        last = Some(load);
    }
    Ok((values, last.context("a message")?))
}

#[tokio::test]
async fn progress_is_true_and_cheap_while_the_command_is_silent() -> Result<()> {
    let properties = vec![("alluxio.job.worker.threadpool.size".to_owned(), TASKS.to_owned())];
    let cluster = Cluster::start(Options { properties, ..Options::default() }).await?;
    let data = cluster.data("progress")?;
    data.files(FILES, SIZE)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    let sidecar = Sidecar::start(&cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;

    let mut samples = Vec::new();
    let sampling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let begun = SystemTime::now();
            let bytes = tree.copies()?.bytes(1);
            samples.push(Sample { begun, ended: SystemTime::now(), bytes });
        }
    };
    let (values, end) = tokio::select! {
        watched = tokio::time::timeout(LIMIT, watch(&sidecar)) => watched.context("the load hangs")??,
        failed = sampling => return failed,
    };
    assert_eq!(end.state(), State::Loaded, "{end:?}");
    history::assert_complete(&end)?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    samples.push(Sample {
        begun: SystemTime::now(),
        ended: SystemTime::now(),
        bytes: tree.copies()?.bytes(1),
    });

    let loading = history::time_in(&end, State::Loading)?;
    let (_, text) = http::get(sidecar.admin_address(), "/metrics").await?;
    let spent = text.lines().find_map(|line| line.strip_prefix("preload_progress_call_seconds_total "));
    let spent: f64 = spent.context("the counter")?.trim().parse()?;
    for (time, progress) in &values {
        let before = samples.iter().rfind(|sample| sample.ended + LAG <= *time).map_or(0, |s| s.bytes);
        let after = samples.iter().find(|sample| sample.begun >= *time).context("a later sample")?.bytes;
        let said = progress.bytes_cached;
        assert!(
            before <= said && said <= after + BEING_WRITTEN,
            "{said} bytes were said to be cached; {before} were on the disks {LAG:?} before, {after} soon after"
        );
    }
    let share = spent / loading.as_secs_f64();
    eprintln!("{} values in {loading:?}, calls took {share:.4} of it", values.len());
    assert!(loading >= Duration::from_secs(10), "too short to tell: {loading:?}");
    assert!(values.len() >= 10, "{} values in {loading:?}", values.len());
    assert!(share <= MOST_OF_THE_TIME, "{spent} s of calls in {loading:?} of loading");
    sidecar.assert_no_errors()?;
    drop(sidecar);
    cluster.stop()
}
