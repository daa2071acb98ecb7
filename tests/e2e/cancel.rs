//! CancelLoad and `spec.timeout`: what is ours ends everywhere, at any moment, and nothing else does.

mod foreign;

use crate::outcome::{begin_with, wish};
use crate::support::{assert_nothing_works_on, cancel, changes, live_jobs, loaders, rough, watch_until};
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Load, LoadSpec, StartLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Data, MIB, Sidecar, load, shared, wait};
use std::time::{Duration, Instant};
use tonic::Code;

/// What a native load may have asked of two workers at once: 16 blocks of 8 MiB each.
const IN_FLIGHT: u64 = 2 * 16 * 8 * MIB;
/// Small files: the command is still submitting when a fifth is loaded.
const SMALL: (usize, u64) = (800, 16 * 1024);
const COMMAND: Engine = Engine::DistributedLoad;
/// After CANCELLED nothing may be cached any more for so long.
const STEADY: Duration = Duration::from_secs(10);

/// A sidecar that has loaded before: it knows what the command can do, and begins the next load at once. Its
/// log has what the command says.
async fn warm(cluster: &Cluster) -> Result<Sidecar<'_>> {
    let data = cluster.data("warm")?;
    data.files(1, 10)?;
    let sidecar = Sidecar::start(cluster, &["--log", "info,alluxio_command=debug"]).await?;
    begin_with(&sidecar, COMMAND, "warm", data.path(), 1).await?;
    sidecar.in_state("warm", State::Loaded).await?;
    Ok(sidecar)
}

/// Cancels when a fifth of the bytes is cached, and proves that nothing goes on. Where the load ran ahead of us,
/// another one is tried.
async fn cancelled_half_way(engine: Engine, name: &str, (files, size): (usize, u64)) -> Result<()> {
    let cluster = rough().await?;
    for _ in 0..4 {
        let data = cluster.data(name)?;
        data.files(files, size)?;
        if cancelled_in_time(cluster, engine, &data).await? {
            return Ok(());
        }
    }
    anyhow::bail!("too late each time, which proves nothing")
}

/// False: more than six tenths were cached when it was to be cancelled.
async fn cancelled_in_time(cluster: &Cluster, engine: Engine, data: &Data) -> Result<bool> {
    let path = data.path();
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    let tree = cluster.oracle().tree(path).await?;
    begin_with(&sidecar, engine, "a", path, 1).await?;
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
    if engine == Engine::Native {
        // What the workers had begun they finish.
        let at_the_end = tree.copies()?.bytes(usize::MAX);
        wait::until("what is in flight to land", wait::LIMIT, async || {
            let before = tree.copies()?.bytes(usize::MAX);
            tokio::time::sleep(STEADY / 10).await;
            Ok((tree.copies()?.bytes(usize::MAX) == before).then_some(()))
        })
        .await?;
        let landed = tree.copies()?.bytes(usize::MAX) - at_the_end;
        ensure!(landed <= IN_FLIGHT, "{landed} bytes were cached after the end");
    }
    let cached = steady(cluster, path).await?;
    eprintln!(
        "{jobs} live jobs; the command ended in {command:?}, all in {all:?}, with {cached} of {length} bytes"
    );
    sidecar.assert_quiet()?;
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
    cancelled_half_way(COMMAND, "cancel-small", SMALL).await
}

#[tokio::test]
async fn big_files_half_way() -> Result<()> {
    cancelled_half_way(COMMAND, "cancel-big", (24, 15 * MIB)).await
}

#[tokio::test]
async fn small_files_of_a_native_load_half_way() -> Result<()> {
    cancelled_half_way(Engine::Native, "cancel-small", (4 * SMALL.0, SMALL.1)).await
}

#[tokio::test]
async fn big_files_of_a_native_load_half_way() -> Result<()> {
    cancelled_half_way(Engine::Native, "cancel-big", (90, 8 * MIB)).await
}

#[tokio::test]
async fn before_the_command_has_submitted() -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("cancel-early")?;
    data.files(200, SMALL.1)?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    begin_with(&sidecar, COMMAND, "a", data.path(), 1).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    cancel(&sidecar, "a").await?;
    assert_cancelled(&sidecar.in_state("a", State::Cancelled).await?);
    steady(cluster, data.path()).await?;
    sidecar.assert_quiet()
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
    sidecar.assert_quiet()
}

/// A listing that is given up, or the end of the sidecar, leaves no file that Alluxio knows by half and nobody can read.
#[tokio::test]
async fn a_listing_may_be_given_up_at_any_moment() -> Result<()> {
    let cluster = shared().await?;
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    for round in 0..8_u64 {
        let data = cluster.data("given-up")?;
        for folder in 0..10 {
            data.below(&format!("d{folder}"))?.files(60, 10)?;
        }
        let (first, second) = (format!("first-{round}"), format!("second-{round}"));
        begin_with(&sidecar, Engine::Native, &first, data.path(), 1).await?;
        watch_until(&sidecar, &first, |load| load.state() == State::Listing).await?;
        // Loading the metadata takes most of a second.
        tokio::time::sleep(Duration::from_millis(50 * round)).await;
        if round % 2 == 0 {
            sidecar.terminate().await?;
            sidecar.restart().await?;
        }
        cancel(&sidecar, &first).await?;
        sidecar.finished(&first).await?;
        begin_with(&sidecar, Engine::Native, &second, data.path(), 1).await?;
        let load = sidecar.finished(&second).await?;
        ensure!(load.state() == State::Loaded, "round {round}: {load:?}");
    }
    sidecar.assert_quiet()
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
    sidecar.assert_quiet()
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
    sidecar.assert_quiet()
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
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_load_that_takes_too_long_ends_like_a_cancelled_one() -> Result<()> {
    takes_too_long(COMMAND, 6).await
}

#[tokio::test]
async fn a_native_load_that_takes_too_long_ends_like_a_cancelled_one() -> Result<()> {
    takes_too_long(Engine::Native, 1).await
}

async fn takes_too_long(engine: Engine, seconds: i64) -> Result<()> {
    let cluster = rough().await?;
    let data = cluster.data("timeout")?;
    // More than a fast machine loads in the time given.
    data.files(3 * SMALL.0, SMALL.1)?;
    // Alluxio knows the metadata, so that the time is spent in LOADING.
    let length = cluster.oracle().copies(data.path()).await?.length();
    let sidecar = warm(cluster).await?;

    let wish = wish("a", data.path(), 1, |spec| {
        spec.set_engine(engine);
        spec.timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    });
    sidecar.start_load(wish?).await?;
    let load = sidecar.finished("a").await?;
    assert_eq!((load.state(), load.reason()), (State::Failed, Reason::TimedOut), "{load:?}");
    assert!(changes(&load).contains(&(State::Listing, State::Loading)), "{load:?}");
    assert!(load.message.contains(&format!("{seconds} s")), "{}", load.message);
    assert_eq!(load.error.as_ref().map(|error| Code::from(error.code)), Some(Code::DeadlineExceeded));
    let cached = steady(cluster, data.path()).await?;
    ensure!(cached < length, "it was loaded in time, which proves nothing");
    sidecar.assert_quiet()
}
