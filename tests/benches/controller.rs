//! Thousands of AlluxioRuntimes on a real Kubernetes: what the controller takes and writes, and how soon it
//! starts a load. The sidecars are played; all that is measured is the controller, and what it waits for.

mod fleet;

use crate::document::Section;
use crate::{Bench, machine, plot};
use anyhow::{Result, ensure};
use fleet::{AT_ONCE, Fleet, LIMIT, WORKERS, Writes, condition, names, watched_again};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use preload_tests::resident::Memory;
use preload_tests::stats::{Spread, milliseconds, number, percentile};
use preload_tests::stub::Stub;
use preload_tests::{Crds, Kubernetes, KubernetesOptions, Part, crds, http, wait};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two questions whether it leads.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// After the last runtime is Loaded, before memory is looked at.
const REST: Duration = Duration::from_secs(10);
/// A load that is over before anybody writes of its progress, and one that is not.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3);
const MOST_MEMORY: f64 = 150.0;
const MOST_WRITES: f64 = 8.0;
const LONGEST_START: f64 = 1_000.0;

/// All at once, and then a cold start.
#[derive(Debug)]
struct Flood {
    runtimes: usize,
    /// Seconds from the first creation to the last, and to the last Loaded.
    created: f64,
    loaded: f64,
    /// MB over seconds.
    memory: Vec<(f64, f64)>,
    peak: f64,
    rest: f64,
    cpu: Duration,
    writes: Writes,
    cold: Cold,
}

#[derive(Debug)]
struct Cold {
    leading: Duration,
    /// Until every sidecar is watched again.
    watched: Duration,
    peak: f64,
    writes: Writes,
}

/// From the opening of the last gate to StartLoad.
#[derive(Debug)]
struct Starts {
    rounds: Vec<Vec<Duration>>,
    writes: Writes,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    bench.say("controller: starting Kubernetes");
    let kubernetes = Kubernetes::start(KubernetesOptions { controller_manager: true }).await?;
    crds::install(&kubernetes, Crds::PatchedFluid).await?;
    let (flooded, started) =
        (kubernetes.namespace("flood", &[]).await?, kubernetes.namespace("start", &[]).await?);
    // All that was needed of it; it would keep a core busy with garbage that nobody makes.
    kubernetes.kill(Part::ControllerManager, Signal::SIGKILL).await?;
    let starts = starts(bench, Fleet::start(&kubernetes, started).await?).await?;
    let flood = flood(bench, Fleet::start(&kubernetes, flooded).await?).await?;
    Ok(report(&flood, &starts))
}

async fn flood(bench: &Bench, mut fleet: Fleet<'_>) -> Result<Flood> {
    let runtimes = bench.size(2_000, 50);
    let names = names("runtime", runtimes + 1);
    let (last, names) = (&names[runtimes..], &names[..runtimes]);
    let stub = fleet.sidecars(runtimes, SHORT)?;
    let pid = fleet.controller.pid()?;
    bench.say(&format!("controller: {runtimes} runtimes at once"));
    let before = machine::cpu(pid)?;
    let (begun, mut memory) = (Instant::now(), Vec::new());
    let working = async {
        drop(fleet.create(names, &stub, true).await?);
        let created = begun.elapsed().as_secs_f64();
        bench.say("  all are created");
        fleet.loaded(bench, names).await?;
        anyhow::Ok((created, begun.elapsed().as_secs_f64()))
    };
    let (created, loaded) = tokio::select! {
        done = working => done?,
        error = look(pid, begun, &mut memory) => return Err(error),
    };
    let cpu = machine::cpu(pid)?.saturating_sub(before);
    tokio::time::timeout(REST, look(pid, begun, &mut memory)).await.map_or_else(|_| Ok(()), Err)?;
    let (peak, rest) = (Memory::of(pid)?.peak, Memory::of(pid)?.now);
    fleet.end().await?;
    let writes = fleet.writes(names, Timestamp::MIN)?;
    ensure!(stub.starts().len() == runtimes, "{} starts of {runtimes} loads", stub.starts().len());

    bench.say("controller: cold start");
    fleet.preloads.reset();
    fleet.runtimes.reset();
    let (watches, since, begun) = (stub.watches(), Timestamp::now(), Instant::now());
    fleet.controller.respawn()?;
    while !http::get(fleet.controller.admin_address(), "/readyz").await.is_ok_and(|(code, _)| code == 200) {
        ensure!(begun.elapsed() < LIMIT, "it does not lead; {}", fleet.controller.log_end());
        tokio::time::sleep(ASK_EVERY).await;
    }
    let leading = begun.elapsed();
    watched_again(&stub, &watches).await?;
    let watched = begun.elapsed();
    // Whatever is still queued comes before what this one needs.
    let another = fleet.sidecars(1, SHORT)?;
    fleet.create(last, &another, true).await?;
    fleet.loaded(bench, last).await?;
    let peak_of_cold = Memory::of(fleet.controller.pid()?)?.peak;
    fleet.end().await?;
    let cold = Cold { leading, watched, peak: peak_of_cold, writes: fleet.writes(names, since)? };
    Ok(Flood { runtimes, created, loaded, memory, peak, rest, cpu, writes, cold })
}

/// Until the process is gone, which is the error.
async fn look(pid: u32, begun: Instant, memory: &mut Vec<(f64, f64)>) -> anyhow::Error {
    loop {
        match Memory::of(pid) {
            Ok(seen) => memory.push((begun.elapsed().as_secs_f64(), seen.now)),
            Err(error) => return error,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn starts(bench: &Bench, mut fleet: Fleet<'_>) -> Result<Starts> {
    let (rounds, runtimes) = (bench.size(5, 2), bench.size(200, 20));
    // The controller goes on to watch the loads of the rounds before.
    let (mut times, mut all, mut stubs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        bench.say(&format!("controller: starts, round {round} of {rounds}"));
        let names = names(&format!("round-{round}"), runtimes);
        let stub = fleet.sidecars(runtimes, LONG)?;
        times.push(open_gates(&fleet, &names, &stub).await?);
        fleet.loaded(bench, &names).await?;
        all.extend(names);
        stubs.push(stub);
    }
    fleet.end().await?;
    Ok(Starts { rounds: times, writes: fleet.writes(&all, Timestamp::MIN)? })
}

/// The times from just before Fluid says that the workers are ready to the arrival of StartLoad.
async fn open_gates(fleet: &Fleet<'_>, names: &[String], stub: &Stub) -> Result<Vec<Duration>> {
    let fluids = fleet.create(names, stub, false).await?;
    wait::until("all but the workers to be ready", LIMIT, async || {
        let known = fleet.preloads.count(names, |status| {
            condition(status, "SidecarReachable") == "True" && condition(status, "MasterReady") == "True"
        });
        let shown = fleet.runtimes.count(names, |status| status["preloadStatus"] == "NotStarted");
        ensure!(known == names.len() && shown == names.len(), "{known} are, {shown} runtimes show it");
        Ok(Some(()))
    })
    .await?;
    let opened: HashMap<String, Instant> = stream::iter(&fluids)
        .map(async |fluid| {
            let now = Instant::now();
            fluid.report_ready(WORKERS).await?;
            anyhow::Ok((fluid.name().to_owned(), now))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    wait::until("StartLoad for each", LIMIT, async || {
        let starts = stub.starts().len();
        ensure!(starts == names.len(), "{starts} of {}", names.len());
        Ok(Some(()))
    })
    .await?;
    let starts = stub.starts();
    let times = starts.iter().filter_map(|start| Some(start.at.duration_since(*opened.get(&start.name)?)));
    Ok(times.collect())
}

fn report(flood: &Flood, starts: &Starts) -> Section {
    let Flood { runtimes, cold, .. } = flood;
    let mut section = Section::new("controller", "2,000 AlluxioRuntimes");
    section.paragraph(&format!(
        "Own etcd and kube-apiserver, Fluid's CRD with our patch, one controller, whose runtime has one thread. \
         {runtimes} runtimes are created with their masters' pods and Fluid's reports, {AT_ONCE} requests at \
         a time. Their sidecars are played by one process of the harness, which really has {runtimes} \
         addresses; each load takes {} s. API server, harness and controller share the cores, so the times \
         are theirs rather than the controller's. Writes are those of the API server's audit log that \
         were not refused; they count a runtime and its Preload together. Cold start: the controller is ended by \
         SIGTERM and started again with {runtimes} Loaded runtimes.",
        (SHORT + Duration::from_millis(100)).as_secs_f64(),
    ));
    let seconds = |time: f64| number(time).to_string();
    section.table(
        ["", "s", "MB, peak", "object writes, median", "most", "progress writes", "events", "conflicts"],
        &[
            row("created to Loaded", flood.loaded, flood.peak, &flood.writes),
            row("cold start to all watched", cold.watched.as_secs_f64(), cold.peak, &cold.writes),
        ],
    );
    section.paragraph(&format!(
        "The last runtime was created after {} s. The controller used {} s of a core, and had {} MB after {} s \
         of rest. After its cold start it led, with full caches, within {} ms.",
        seconds(flood.created),
        seconds(flood.cpu.as_secs_f64()),
        number(flood.rest),
        REST.as_secs(),
        number(cold.leading.as_secs_f64() * 1e3),
    ));
    let sorted: Vec<_> = starts.rounds.iter().map(|round| milliseconds(round)).collect();
    let over = |percent| Spread::of(sorted.iter().map(|times| percentile(times, percent)));
    let (p50, p99, most) = (over(50.0), over(99.0), over(100.0));
    section.paragraph(&format!(
        "The start of a load: of {} runtimes whose other gates are open, Fluid says that the workers are ready, \
         {AT_ONCE} requests at a time; from before that request to the arrival of StartLoad at the sidecar. {} \
         rounds with new runtimes; their loads take {} s, with progress.",
        sorted.first().map_or(0, Vec::len),
        sorted.len(),
        LONG.as_secs(),
    ));
    section.table(
        ["p50, ms", "p99, ms", "longest, ms", "object writes, median", "most", "progress writes", "events"],
        &[[
            p50.to_string(),
            p99.to_string(),
            most.to_string(),
            median(&starts.writes),
            most_of(&starts.writes).to_string(),
            starts.writes.progress.to_string(),
            starts.writes.events.to_string(),
        ]],
    );
    let peak = flood.peak.max(cold.peak);
    let at_cold_start: f64 = cold.writes.objects.iter().sum();
    let most_writes = most_of(&flood.writes);
    section.bars(&[
        ("memory below 150 MB", format!("{} MB", number(peak)), peak < MOST_MEMORY),
        ("at most 8 object writes for a runtime", most_writes.to_string(), most_writes <= MOST_WRITES),
        ("p99 of a start below 1 s", format!("{p99} ms"), p99.median < LONGEST_START),
        ("no object write at a cold start", at_cold_start.to_string(), at_cold_start == 0.0),
    ]);
    let title = format!("Memory of the controller while {runtimes} runtimes become Loaded");
    section.plot(&title, plot::timeline(&title, "MB", &[("resident", &flood.memory)], MOST_MEMORY));
    section
}

fn row(name: &str, seconds: f64, peak: f64, writes: &Writes) -> [String; 8] {
    [
        name.to_owned(),
        number(seconds),
        number(peak),
        median(writes),
        most_of(writes).to_string(),
        writes.progress.to_string(),
        writes.events.to_string(),
        writes.conflicts.to_string(),
    ]
}

fn median(writes: &Writes) -> String {
    percentile(&writes.objects, 50.0).to_string()
}

fn most_of(writes: &Writes) -> f64 {
    writes.objects.last().copied().unwrap_or_default()
}
