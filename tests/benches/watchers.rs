//! Ten thousand watchers of one load that really makes progress, and what others feel of it.

mod crowd;

use crate::document::Section;
use crate::{Bench, machine, plot};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{CancelLoadRequest, StartLoadRequest};
use anyhow::{Context, Result, bail};
use crowd::{Crowd, Seen};
use preload_tests::resident::Memory;
use preload_tests::stats::{Spread, milliseconds, percentile};
use preload_tests::{Setup, load};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Between two calls of the one that starts other loads.
const PACE: Duration = Duration::from_millis(20);
const FILE_SIZE: u64 = 16_000;

/// A number of watchers over a number of connections; the first kind, one watcher, shows what the load alone
/// does to others.
#[derive(Debug)]
struct Kind {
    watchers: usize,
    connections: usize,
    runs: Vec<Run>,
}

/// What one run found.
#[derive(Debug)]
struct Run {
    idle: Vec<Duration>,
    meanwhile: Vec<Duration>,
    seen: Seen,
    /// MB, before the load began and at the highest.
    waiting: f64,
    peak: f64,
    /// Of the sidecar, from the beginning of the load to its end.
    cpu: Duration,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let watchers = bench.size(10_000, 500);
    let rounds = bench.size(3, 1);
    let mut kinds = [(1, 1), (watchers, bench.size(100, 10)), (watchers, watchers)]
        .map(|(watchers, connections)| Kind { watchers, connections, runs: Vec::new() });
    for round in 1..=rounds {
        for Kind { watchers, connections, runs } in &mut kinds {
            bench.say(&format!(
                "watchers: round {round} of {rounds}, {watchers} watchers, {connections} connections"
            ));
            let run = watch(bench, *watchers, *connections).await?;
            bench.say(&format!(
                "  {} saw LOADED; peak {:.0} MB; p99 of StartLoad {:.1} ms, idle {:.1} ms",
                run.seen.loaded,
                run.peak,
                p99(&run.meanwhile),
                p99(&run.idle)
            ));
            runs.push(run);
        }
    }
    Ok(report(&kinds))
}

/// One load at a time runs. At first it is one that waits for workers which do not exist; the watched one
/// comes next, and all others queue behind it, so that starting them costs what durability costs.
async fn watch(bench: &Bench, watchers: usize, connections: usize) -> Result<Run> {
    let cluster = bench.cluster().await?;
    let data = cluster.data("watched")?;
    data.files(bench.size(1_000, 100), FILE_SIZE)?;
    let setup = Setup::new(cluster).quiet().argument("--max-running=1").argument("--max-queued=100000");
    let mut sidecar = setup.start().await?;
    let mut client = sidecar.client()?;
    let mut hold = load("hold", "/hold", 1);
    if let Some(spec) = &mut hold.spec {
        spec.min_workers = 99;
    }
    sidecar.start_load(hold).await?;
    sidecar.in_state("hold", State::Waiting).await?;
    sidecar.start_load(load("watched", data.path(), 1)).await?;

    let mut others = (0..).map(|number| load(&format!("other-{number}"), &format!("/others/{number}"), 1));
    for request in others.by_ref().take(20) {
        start(&mut client, request).await?;
    }
    let mut idle = Vec::new();
    for request in others.by_ref().take(bench.size(400, 20)) {
        idle.push(start(&mut client, request).await?);
        tokio::time::sleep(PACE).await;
    }

    let crowd = Crowd::gather(sidecar.address(), "watched", watchers, connections)?;
    crowd.gathered().await?;
    let waiting = Memory::of(sidecar.pid()?)?.now;
    let before = machine::cpu(sidecar.pid()?)?;
    let cancel = CancelLoadRequest { load_id: "hold".to_owned() };
    client.cancel_load(cancel).await.context("CancelLoad")?;
    let mut meanwhile = Vec::new();
    while !crowd.is_over() {
        let Some(request) = others.next() else { break };
        meanwhile.push(start(&mut client, request).await?);
        tokio::time::sleep(PACE).await;
    }
    let peak = Memory::of(sidecar.pid()?)?.peak;
    let cpu = machine::cpu(sidecar.pid()?)?.saturating_sub(before);
    let log = sidecar.log_end();
    // Before it takes up what has queued.
    sidecar.kill9().await?;
    let seen = crowd.seen()?;
    if seen.loaded < watchers {
        bail!("{} of {watchers} watchers saw LOADED; {:?}; {log}", seen.loaded, seen.complaint);
    }
    Ok(Run { idle, meanwhile, seen, waiting, peak, cpu })
}

async fn start(client: &mut PreloadServiceClient<Channel>, request: StartLoadRequest) -> Result<Duration> {
    let begun = Instant::now();
    client.start_load(request).await.context("StartLoad")?;
    Ok(begun.elapsed())
}

fn report(kinds: &[Kind; 3]) -> Section {
    let [alone, shared, own] = kinds;
    let mut section = Section::new("watchers", "10,000 watchers of one load");
    section.paragraph(&format!(
        "A load of 1,000 files of 16 kB by distributedLoad on a two-worker Alluxio, WatchLoad streams from \
         before its beginning to its end, and a caller who starts another load every {} ms, before and \
         meanwhile; {} runs of each kind in turns, each with a fresh sidecar. Watchers and Alluxio share \
         the cores with the sidecar; the runs with one watcher tell what the load alone does.",
        PACE.as_millis(),
        alone.runs.len()
    ));
    let memory = kinds.each_ref().map(|kind| {
        [
            kind.name(),
            kind.over(|run| run.seen.loaded as f64).median.to_string(),
            kind.over(|run| run.waiting).to_string(),
            kind.over(|run| run.peak).to_string(),
            kind.over(|run| run.cpu.as_secs_f64()).to_string(),
            kind.over(|run| run.seen.messages).to_string(),
            kind.over(|run| run.seen.spread.as_secs_f64() * 1e3).to_string(),
        ]
    });
    let head =
        ["", "saw LOADED", "MB before", "MB, peak", "CPU, s", "messages to each", "first to last LOADED, ms"];
    section.table(head, &memory);

    let mut calls = Vec::new();
    for kind in kinds {
        let mut row = |when: &str, times: fn(&Run) -> &Vec<Duration>| {
            let count: usize = kind.runs.iter().map(|run| times(run).len()).sum();
            let at = |percent| kind.at(times, percent).to_string();
            calls.push([format!("{}, {when}", kind.name()), count.to_string(), at(50.0), at(99.0)]);
        };
        row("idle, before they came", |run| &run.idle);
        row("while it loads", |run| &run.meanwhile);
    }
    section.table(["StartLoad of other loads", "calls", "p50, ms", "p99, ms"], &calls);

    let all = kinds.iter().all(|kind| kind.runs.iter().all(|run| run.seen.loaded == kind.watchers));
    let (peak_shared, peak_own) = (shared.over(|run| run.peak), own.over(|run| run.peak));
    let slower = |kind: &Kind| kind.over(|run| p99(&run.meanwhile) / p99(&run.idle));
    let (slower_shared, slower_own) = (slower(shared), slower(own));
    section.bars(&[
        ("every watcher gets the terminal state", if all { "all" } else { "not all" }.to_owned(), all),
        ("100 connections: below 150 MB", format!("{peak_shared} MB"), peak_shared.median < 150.0),
        ("10,000 connections: below 350 MB", format!("{peak_own} MB"), peak_own.median < 350.0),
        (
            "100 connections: p99 of StartLoad below 10 x idle",
            format!("{slower_shared} x"),
            slower_shared.median < 10.0,
        ),
        (
            "10,000 connections: p99 of StartLoad below 10 x idle",
            format!("{slower_own} x"),
            slower_own.median < 10.0,
        ),
    ]);

    let title = format!("StartLoad while {} watchers follow another load", own.watchers);
    let names = kinds.each_ref().map(|kind| format!("loading, {}", kind.name()));
    let idle = shared.pool(|run| &run.idle);
    let pools = kinds.each_ref().map(|kind| kind.pool(|run| &run.meanwhile));
    let mut curves = vec![("idle", idle.as_slice())];
    curves.extend(names.iter().zip(&pools).map(|(name, times)| (name.as_str(), times.as_slice())));
    section.plot(&title, plot::percentiles(&title, &curves));
    section
}

fn p99(times: &[Duration]) -> f64 {
    percentile(&milliseconds(times), 99.0)
}

impl Kind {
    fn name(&self) -> String {
        match (self.watchers, self.connections) {
            (1, _) => "1 watcher".to_owned(),
            (watchers, connections) => format!("{watchers} over {connections}"),
        }
    }

    fn over(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure))
    }

    /// A percentile of each run, in ms.
    fn at(&self, times: fn(&Run) -> &Vec<Duration>, percent: f64) -> Spread {
        self.over(|run| percentile(&milliseconds(times(run)), percent))
    }

    fn pool(&self, times: fn(&Run) -> &Vec<Duration>) -> Vec<f64> {
        milliseconds(&self.runs.iter().flat_map(times).copied().collect::<Vec<_>>())
    }
}
