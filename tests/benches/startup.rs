//! An idle sidecar's memory, and the time from exec to the first answer.

use crate::Bench;
use crate::document::Section;
use alluxio_preload_api::v1::{CancelLoadRequest, ListLoadsRequest, WatchLoadRequest};
use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use preload_sidecar::clock::Clock;
use preload_sidecar::job::{AlluxioPath, Job, LoadId, Spec, State, Transition};
use preload_sidecar::store::{Created, Store};
use preload_tests::resident::Memory;
use preload_tests::stats::Spread;
use preload_tests::{Sandbox, Setup, Sidecar, load};
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Past this the sidecar does not come up at all.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two calls of a client that waits for the first answer.
const PAUSE: Duration = Duration::from_millis(1);
/// After the last call, before memory is looked at.
const REST: Duration = Duration::from_secs(1);

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let sandbox = Sandbox::new()?;
    let rounds = bench.size(11, 2);
    let jobs = bench.size(100_000, 1_000);
    bench.say(&format!("startup: writing {jobs} finished jobs"));
    let full = sandbox.folder("full")?;
    fill(&full, jobs).await?;

    let (mut empty_times, mut full_times) = (Vec::new(), Vec::new());
    let (mut idle, mut idle_full) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        bench.say(&format!("startup: round {round} of {rounds}"));
        let (time, sidecar) = first_answer(Setup::alone(&sandbox).quiet()).await?;
        empty_times.push(time);
        idle.push(memory_after_use(&sidecar).await?);
        drop(sidecar);
        let setup = Setup::alone(&sandbox).quiet().state_directory(&full).argument("--retained=10000000");
        let (time, mut sidecar) = first_answer(setup).await?;
        full_times.push(time);
        idle_full.push(memory_after_use(&sidecar).await?);
        // As it ends in bad days: the next start finds the journal of this one.
        sidecar.kill9().await?;
    }
    let spread = |times: &[Duration]| Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
    let resident = |all: &[Memory]| Spread::of(all.iter().map(|memory| memory.now));
    let own = |all: &[Memory]| Spread::of(all.iter().map(|memory| memory.anonymous));
    let (empty_time, full_time) = (spread(&empty_times), spread(&full_times));

    let mut section = Section::new("startup", "Start and idle memory");
    section.paragraph(&format!(
        "From the fork, the harness's own supervisor included, to the first ListLoads that was answered \
         with OK; a client tries every millisecond. {rounds} rounds in turns; the full store had been left \
         by kill -9. Memory after StartLoad, WatchLoad, ListLoads and CancelLoad, and a second of rest."
    ));
    section.table(
        ["store", "to the first answer, ms", "resident, MB", "of it anonymous, MB"],
        &[
            ["empty".into(), empty_time.to_string(), resident(&idle).to_string(), own(&idle).to_string()],
            [
                format!("{jobs} finished jobs"),
                full_time.to_string(),
                resident(&idle_full).to_string(),
                own(&idle_full).to_string(),
            ],
        ],
    );
    let idle = resident(&idle);
    section.bars(&[
        ("idle: below 12 MB", format!("{idle} MB"), idle.median < 12.0),
        ("empty store: serves within 50 ms", format!("{empty_time} ms"), empty_time.median <= 50.0),
        ("100,000 finished jobs: within 500 ms", format!("{full_time} ms"), full_time.median <= 500.0),
    ]);
    Ok(section)
}

async fn first_answer(setup: Setup<'_>) -> Result<(Duration, Sidecar<'_>)> {
    let begun = Instant::now();
    let sidecar = setup.spawn()?;
    let mut client = sidecar.client()?;
    loop {
        match client.list_loads(ListLoadsRequest { page_size: 1, ..ListLoadsRequest::default() }).await {
            Ok(_) => return Ok((begun.elapsed(), sidecar)),
            Err(status) if begun.elapsed() > LIMIT => {
                return Err(status).with_context(|| format!("wait for an answer; {}", sidecar.log_end()));
            }
            // Not there yet, or says that it opens the store.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Memory once it has served a few calls and has nothing to do.
async fn memory_after_use(sidecar: &Sidecar<'_>) -> Result<Memory> {
    let mut client = sidecar.client()?;
    let id = format!("used-{}", Uuid::new_v4());
    client.start_load(load(&id, "/used", 1)).await.context("StartLoad")?;
    let request = WatchLoadRequest { load_id: id.clone(), ..WatchLoadRequest::default() };
    let mut watch = client.watch_load(request).await.context("WatchLoad")?.into_inner();
    client.list_loads(ListLoadsRequest::default()).await.context("ListLoads")?;
    client.cancel_load(CancelLoadRequest { load_id: id }).await.context("CancelLoad")?;
    while watch.message().await.context("WatchLoad")?.is_some() {}
    drop((watch, client));
    tokio::time::sleep(REST).await;
    Memory::of(sidecar.pid()?)
}

/// As many jobs, as large as a job usually is at its end.
async fn fill(directory: &Path, jobs: usize) -> Result<()> {
    let store = Store::open(directory).context("open a store")?;
    let names: Vec<String> = (0..jobs).map(|n| format!("finished-load-of-a-dataset-{n:06}")).collect();
    for some in names.chunks(1000) {
        let written = try_join_all(
            some.iter()
                .map(async |name| Ok::<_, anyhow::Error>(store.create(finished(name)?, usize::MAX).await?)),
        );
        if written.await?.iter().any(|created| *created != Created::New) {
            bail!("the store had one of the jobs already");
        }
    }
    store.close().await;
    Ok(())
}

fn finished(name: &str) -> Result<Job> {
    let now = Clock::system().now();
    let id = LoadId::try_from(name.to_owned()).map_err(anyhow::Error::msg)?;
    let path = AlluxioPath::try_from(format!("/datasets/{name}")).map_err(anyhow::Error::msg)?;
    let mut job = Job::new(id, Uuid::now_v7(), Spec::new(path), now);
    let states =
        [State::Queued, State::Waiting, State::Listing, State::Loading, State::Verifying, State::Loaded];
    for step in states.windows(2) {
        let (from, to, message) = (step[0], step[1], "what Alluxio said at its end".to_owned());
        job.sequence += 1;
        let sequence = job.sequence;
        job.transitions.push_back(Transition { from, to, reason: None, message, time: now, sequence });
    }
    job.state = State::Loaded;
    job.cluster = "1767225600000".to_owned();
    job.started = Some(now);
    job.ended = Some(now);
    Ok(job)
}
