//! An hour of short loads: memory and open files must not grow with what a sidecar has done.
//!
//! Invariants: what is loaded is in the cache already, so that the sidecar is what works; every load is started, watched
//! to LOADED and deleted; a load that is late is started at once, none is left out.

use crate::document::Section;
use crate::{Bench, machine, plot};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{DeleteLoadRequest, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::resident::Memory;
use preload_tests::stats::{Spread, milliseconds, number, percentile};
use preload_tests::{Setup, load};
use std::fs;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::transport::Channel;

/// Loads a second.
const RATE: u32 = 10;
const FILES: usize = 50;
const FILE_SIZE: u64 = 16_000;
/// For one load.
const LIMIT: Duration = Duration::from_secs(60);
/// Samples that stand for the memory at the end of a stretch.
const LAST_MINUTE: usize = 60;
/// Growth of the resident memory that is no leak, as a part of it.
const MOST_GROWTH: f64 = 0.05;

/// One stretch of the time.
#[derive(Debug, Default)]
struct Stretch {
    times: Vec<Duration>,
    /// MB: half of the samples of its last minute are below, and all samples at or below.
    resident: f64,
    most: f64,
    /// Descriptors at its end.
    files: usize,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let (stretches, length) = bench.size((6, Duration::from_secs(600)), (3, Duration::from_secs(5)));
    let cluster = bench.cluster().await?;
    let data = cluster.data("soak")?;
    data.files(FILES, FILE_SIZE)?;
    let sidecar = Setup::new(cluster).quiet().start().await?;
    let client = sidecar.client()?;
    one(client.clone(), "first".to_owned(), data.path().to_owned()).await?;

    let begun = Instant::now();
    let (mut found, mut memory, mut number_of_load) = (Vec::new(), Vec::new(), 0_u64);
    let mut busy = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut loads = JoinSet::new();
    for nth in 1..=stretches {
        let mut stretch = Stretch::default();
        let mut samples = Vec::new();
        while begun.elapsed() < length * nth {
            ticks.tick().await;
            number_of_load += 1;
            let file = format!("{}/f{:05}", data.path(), number_of_load as usize % FILES);
            loads.spawn(one(client.clone(), format!("soak-{number_of_load}"), file));
            while let Some(ended) = loads.try_join_next() {
                stretch.times.push(ended??);
            }
            if number_of_load.is_multiple_of(u64::from(RATE)) {
                let now = Memory::of(sidecar.pid()?)?.now;
                memory.push((begun.elapsed().as_secs_f64(), now));
                samples.push(now);
                busy.push(machine::load_average()?);
            }
        }
        while let Some(ended) = loads.join_next().await {
            stretch.times.push(ended??);
        }
        let last = Spread::of(samples.split_off(samples.len().saturating_sub(LAST_MINUTE)));
        stretch.resident = last.median;
        stretch.most = samples.into_iter().fold(last.most, f64::max);
        let descriptors = format!("/proc/{}/fd", sidecar.pid()?);
        stretch.files = fs::read_dir(descriptors).context("count open files")?.count();
        bench.say(&format!(
            "soak: {nth} of {stretches}, {} loads, {:.1} MB, {} open files",
            stretch.times.len(),
            stretch.resident,
            stretch.files
        ));
        found.push(stretch);
    }
    sidecar.assert_quiet()?;
    Ok(report(&found, length, &memory, &Spread::of(busy)))
}

/// Starts a load, watches it to LOADED, and deletes it: from before StartLoad to LOADED.
async fn one(mut client: PreloadServiceClient<Channel>, id: String, path: String) -> Result<Duration> {
    let mut request = load(&id, &path, 1);
    if let Some(spec) = &mut request.spec {
        spec.set_engine(Engine::Native);
    }
    let begun = Instant::now();
    let watched = async {
        client.start_load(request).await.context("StartLoad")?;
        let request = WatchLoadRequest { load_id: id.clone(), ..WatchLoadRequest::default() };
        let mut stream = client.watch_load(request).await.context("WatchLoad")?.into_inner();
        let mut last = None;
        while let Some(load) = stream.message().await.context("WatchLoad")? {
            last = Some(load);
        }
        let last = last.context("a watch without a message")?;
        ensure!(last.state() == State::Loaded, "{:?}: {}", last.state(), last.message);
        let took = begun.elapsed();
        client.delete_load(DeleteLoadRequest { load_id: id.clone() }).await.context("DeleteLoad")?;
        Ok(took)
    };
    tokio::time::timeout(LIMIT, watched).await.with_context(|| format!("load {id}"))?
}

fn report(found: &[Stretch], length: Duration, memory: &[(f64, f64)], busy: &Spread) -> Section {
    let minutes = |n: usize| number(length.as_secs_f64() * n as f64 / 60.0);
    let mut section = Section::new("soak", "A soak: ten loads a second");
    section.paragraph(&format!(
        "For {} minutes, {RATE} loads a second of a file of {FILE_SIZE} bytes that is in the cache, by engine NATIVE: \
         each is started, watched to LOADED, and deleted. Times from before StartLoad to LOADED as WatchLoad says it. \
         Memory is read each second: the median of the last minute, and the most. A load of cached data is listed and \
         verified, nothing has to be brought in. The load average of the machine was {} meanwhile; beyond its cores, others \
         were at work, and the times are longer than they would be.",
        minutes(found.len()),
        busy
    ));
    let rows: Vec<_> = found
        .iter()
        .enumerate()
        .map(|(n, stretch)| {
            let times = milliseconds(&stretch.times);
            let at = |percent| number(percentile(&times, percent));
            let files = stretch.files.to_string();
            let (resident, most) = (number(stretch.resident), number(stretch.most));
            [minutes(n + 1), times.len().to_string(), at(50.0), at(99.0), at(100.0), resident, most, files]
        })
        .collect();
    let head =
        ["until minute", "loads", "median ms", "p99 ms", "most ms", "resident MB", "most MB", "open files"];
    section.table(head, &rows);
    if let (Some(first), Some(last)) = (found.first(), found.last()) {
        let growth = last.resident / first.resident - 1.0;
        section.bars(&[
            (
                "resident memory grows by less than 5% after the first stretch",
                format!("{:+.1}%", growth * 100.0),
                growth < MOST_GROWTH,
            ),
            (
                "open files do not grow",
                format!("{} and {}", first.files, last.files),
                last.files <= first.files,
            ),
        ]);
    }
    let title = "Resident memory of the sidecar during the soak";
    section.plot(title, plot::timeline(title, "MB", &[("resident", memory)], 0.0));
    section
}
