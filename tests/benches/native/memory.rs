//! What the sidecar takes of the machine while engine NATIVE loads ever more files: it must not grow with them.

use super::scene::{client, load_metadata};
use super::side::{native, words};
use super::tree::{Tree, thousands};
use crate::Bench;
use crate::document::Section;
use crate::machine::cpu_of;
use crate::plot;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use preload_tests::resident::Memory;
use preload_tests::stats::number;
use preload_tests::{Cluster, Data, MIB, Options, Setup};
use std::time::{Duration, Instant};

/// One load of the largest.
const LIMIT: Duration = Duration::from_secs(3600);
/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of the plot.
const POINTS: usize = 600;
/// Folders whose metadata are loaded at once.
const AT_ONCE: usize = 4;
/// MB that the sidecar should stay below.
const BAR: f64 = 64.0;

/// One byte in each: what counts is how many there are.
const SHAPES: [Tree; 4] =
    [Tree::new(1, 10_000, 1), Tree::new(10, 10_000, 1), Tree::new(1, 100_000, 1), Tree::new(100, 10_000, 1)];
const QUICK: [Tree; 2] = [Tree::new(1, 500, 1), Tree::new(2, 500, 1)];

/// One load by a fresh sidecar.
#[derive(Debug)]
struct Run {
    seconds: f64,
    /// MB.
    peak: f64,
    /// Seconds of CPU.
    sidecar: f64,
    cluster: f64,
    /// MB over seconds.
    memory: Vec<(f64, f64)>,
}

#[derive(Debug)]
struct Found {
    tree: Tree,
    /// Seconds until the master knew the files.
    metadata: f64,
    cold: Run,
    cached: Run,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    bench.say("native-memory: starting Alluxio");
    let cluster = Cluster::start(Options {
        worker_quota: 4096 * MIB,
        cache_in_memory: true,
        block_size: 64 * MIB,
        master_heap: bench.size(5120, 512),
        worker_heap: bench.size(1536, 320),
        ..Options::default()
    })
    .await?;
    let shapes = if bench.quick { &QUICK[..] } else { &SHAPES[..] };
    let mut found = Vec::new();
    let mut failed = None;
    for tree in shapes {
        match measure(bench, &cluster, *tree).await {
            Ok(figures) => found.push(figures),
            // The smaller ones are worth having.
            Err(error) if !found.is_empty() => {
                bench.say(&format!("native-memory: {}: {error:#}", name(*tree)));
                failed = Some(format!("{}: {error}", name(*tree)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report(&found, failed))
}

fn name(tree: Tree) -> String {
    match tree.folders {
        1 => format!("{} in one folder", thousands(tree.files)),
        folders => format!("{} in {folders} folders", thousands(tree.count())),
    }
}

async fn measure(bench: &Bench, cluster: &Cluster, tree: Tree) -> Result<Found> {
    bench.say(&format!("native-memory: {}: linking", name(tree)));
    let data = cluster.data("memory")?;
    let base = tree.write(cluster.sandbox().folder("base")?, 1)?;
    base.link(data.ufs())?;
    let metadata = know(bench, cluster, &data, tree).await?;
    let cold = load(bench, cluster, &data, tree, "cold").await?;
    let cached = load(bench, cluster, &data, tree, "cached").await?;
    Ok(Found { tree, metadata, cold, cached })
}

/// Folder by folder, as the master lists one folder with one thread.
async fn know(bench: &Bench, cluster: &Cluster, data: &Data, tree: Tree) -> Result<f64> {
    let begun = Instant::now();
    let client = client(cluster);
    let folders: Vec<_> = match tree.folders {
        1 => vec![data.path().to_owned()],
        folders => (0..folders).map(|folder| format!("{}/d{folder:04}", data.path())).collect(),
    };
    let mut listed =
        stream::iter(&folders).map(|folder| load_metadata(&client, folder)).buffer_unordered(AT_ONCE);
    let (mut files, mut said) = (0, Instant::now());
    while let Some(more) = listed.try_next().await.context("load metadata")? {
        files += more;
        if said.elapsed() > Duration::from_secs(10) {
            bench.say(&format!("native-memory: metadata of {} files are there", thousands(files)));
            said = Instant::now();
        }
    }
    // The folder itself has to be listed, once.
    let files = load_metadata(&client, data.path()).await.context("load metadata")?;
    ensure!(files == tree.count(), "the master sees {files} of {} files", tree.count());
    Ok(begun.elapsed().as_secs_f64())
}

async fn load(bench: &Bench, cluster: &Cluster, data: &Data, tree: Tree, what: &str) -> Result<Run> {
    let sidecar = Setup::new(cluster).quiet().start().await?;
    let pid = sidecar.pid()?;
    let alluxio = || cluster.pids().into_values().map(cpu_of).sum::<Result<Duration>>();
    let (before, alluxio_before) = (cpu_of(pid)?, alluxio()?);
    let mut memory = Vec::new();
    let begun = Instant::now();
    let ended = tokio::select! {
        ended = native(&sidecar, what, data.path(), 1, LIMIT) => ended?,
        error = look(pid, begun, &mut memory) => return Err(error),
    };
    let (seconds, load) = (ended.seconds, ended.load);
    ensure!(load.state() == State::Loaded, "{}; {}", words(&load), sidecar.log_end());
    let total = load.progress.map_or(0, |progress| progress.files_total);
    ensure!(total == tree.count() as u64, "LOADED speaks of {total} files");
    let run = Run {
        seconds,
        peak: Memory::of(pid)?.peak,
        sidecar: cpu_of(pid)?.saturating_sub(before).as_secs_f64(),
        cluster: alluxio()?.saturating_sub(alluxio_before).as_secs_f64(),
        memory,
    };
    bench.say(&format!(
        "native-memory: {}, {what}: {seconds:.1} s, peak {:.1} MB, CPU {:.1} s beside {:.1} s",
        name(tree),
        run.peak,
        run.sidecar,
        run.cluster
    ));
    let copies = cluster.oracle().copies(data.path()).await?;
    let whole = copies.blocks().filter(|block| !block.workers.is_empty()).count();
    ensure!(whole == tree.count(), "LOADED, and {whole} of {} blocks are there", tree.count());
    Ok(run)
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

fn report(found: &[Found], failed: Option<String>) -> Section {
    let mut section = Section::new("native-memory", "Engine NATIVE: what the sidecar takes of the machine");
    section.paragraph(
        "Files of one byte, one copy, two workers; metadata are loaded before, folder by folder. Two loads of each, \
         with a fresh sidecar: nothing is cached at first, then everything is, so that the second only lists and \
         verifies. Memory is the peak since the process began (VmHWM); CPU is user and system time from StartLoad to \
         LOADED, of the sidecar and of all JVMs of Alluxio together, which lack the optimising compiler.",
    );
    let mut rows = Vec::new();
    for Found { tree, metadata, cold, cached } in found {
        for (what, run) in [("nothing cached", cold), ("all cached", cached)] {
            rows.push([
                name(*tree),
                what.to_owned(),
                number(*metadata),
                number(run.seconds),
                number(run.peak),
                number(run.sidecar),
                number(run.cluster),
                format!("{} %", number(100.0 * run.sidecar / (run.sidecar + run.cluster))),
            ]);
        }
    }
    section.table(
        [
            "files",
            "",
            "metadata before, s",
            "StartLoad to LOADED, s",
            "peak, MB",
            "CPU of the sidecar, s",
            "of Alluxio, s",
            "share of the sidecar",
        ],
        &rows,
    );
    if let Some(failed) = failed {
        section.paragraph(&format!("Not measured: {failed}"));
    }
    let peak = found.iter().flat_map(|f| [f.cold.peak, f.cached.peak]).fold(0.0, f64::max);
    section.bars(&[("peak memory below 64 MB", format!("{} MB", number(peak)), peak < BAR)]);
    if let Some(last) = found.last() {
        let title = format!("Memory of the sidecar while it loads {} files", thousands(last.tree.count()));
        let every = last.cold.memory.len().div_ceil(POINTS).max(1);
        let curve: Vec<_> = last.cold.memory.iter().copied().step_by(every).collect();
        section.plot(&title, plot::timeline(&title, "MB", &[("resident", &curve)], BAR));
    }
    section
}
