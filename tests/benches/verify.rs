//! A verification of 100,000 files, and the memory it takes.

use crate::document::Section;
use crate::{Bench, plot};
use alluxio_client::{Client, Config, LoadMetadata};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, bail};
use preload_tests::resident::Memory;
use preload_tests::stats::Spread;
use preload_tests::{Cluster, Data, Setup, load, wait};
use std::time::{Duration, Instant};

/// Small folders, as in image data sets.
const FILES_OF_A_DIRECTORY: usize = 1_000;
/// For Alluxio to cache all of them.
const CACHE_LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const BAR: f64 = 64.0;

/// What one round found.
#[derive(Debug)]
struct Round {
    listing: f64,
    verifying: f64,
    /// From StartLoad to LOADED.
    whole: f64,
    peak: f64,
    /// MB over seconds.
    memory: Vec<(f64, f64)>,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let files = bench.size(100_000, 2_000);
    let rounds = bench.size(5, 2);
    let cluster = bench.cluster().await?;
    bench.say(&format!("verify: writing {files} files"));
    let data = cluster.data("many")?;
    for folder in 0..files / FILES_OF_A_DIRECTORY {
        data.below(&format!("d{folder:03}"))?.files(FILES_OF_A_DIRECTORY, 1)?;
    }
    bench.say("verify: Alluxio caches them");
    cache(bench, cluster, &data).await?;
    let mut found = Vec::new();
    for number in 1..=rounds {
        bench.say(&format!("verify: round {number} of {rounds}"));
        found.push(round(cluster, &data, files as u64).await?);
    }
    Ok(report(files, &found))
}

/// One copy of each, by Alluxio's own quick way, which needs its metadata first.
async fn cache(bench: &Bench, cluster: &Cluster, data: &Data) -> Result<()> {
    let config = Config { masters: vec![cluster.master_address()], ..Config::default() };
    let mut listing = Client::new(config).list(data.path(), LoadMetadata::Once).await?;
    while listing.next().await?.is_some() {}
    bench.say("  its metadata is there");
    cluster.alluxio(&["fs", "load", data.path(), "--submit"]).await?.success().context("submit the load")?;
    let cached = wait::until("Alluxio to cache the files", CACHE_LIMIT, async || {
        let said = cluster.alluxio(&["fs", "load", data.path(), "--progress"]).await?.success()?;
        let line =
            |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default();
        bench.say(&format!("  {}: {} files", line("Job State: "), line("Files Processed: ")));
        if line("Job State: ").starts_with("FAILED") {
            return Ok(Some(Err(anyhow::anyhow!("{said}"))));
        }
        Ok((line("Job State: ") == "SUCCEEDED").then_some(Ok(())))
    });
    cached.await?
}

async fn round(cluster: &Cluster, data: &Data, files: u64) -> Result<Round> {
    let sidecar = Setup::new(cluster).quiet().start().await?;
    let pid = sidecar.pid()?;
    let begun = Instant::now();
    sidecar.start_load(load("verified", data.path(), 1)).await?;
    let mut memory = Vec::new();
    let ended: Load = tokio::select! {
        ended = sidecar.finished("verified") => ended?,
        error = look(pid, begun, &mut memory) => return Err(error),
    };
    let total = ended.progress.map_or(0, |progress| progress.files_total);
    if ended.state() != State::Loaded || total != files {
        bail!("{:?} of {total} files: {}; {}", ended.state(), ended.message, sidecar.log_end());
    }
    let entered = |state: State| {
        let change = ended.transitions.iter().find(|change| change.to() == state).and_then(|c| c.time);
        let time = change.with_context(|| format!("no change to {state:?}"))?;
        anyhow::Ok(time.seconds as f64 + f64::from(time.nanos) / 1e9)
    };
    let (listing, verifying, loaded) =
        (entered(State::Listing)?, entered(State::Verifying)?, entered(State::Loaded)?);
    let created = ended.create_time.context("no time of creation")?;
    let created = created.seconds as f64 + f64::from(created.nanos) / 1e9;
    Ok(Round {
        listing: verifying - listing,
        verifying: loaded - verifying,
        whole: loaded - created,
        peak: Memory::of(pid)?.peak,
        memory,
    })
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

fn report(files: usize, rounds: &[Round]) -> Section {
    let mut section = Section::new("verify", "A verification of 100,000 files");
    section.paragraph(&format!(
        "{files} files of one byte in folders of {FILES_OF_A_DIRECTORY}, all cached before: the load lists, \
         finds nothing missing, verifies every block, and is LOADED. {} rounds with a fresh sidecar; \
         memory is the peak since the process began.",
        rounds.len()
    ));
    let over = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
    let rate = |seconds: fn(&Round) -> f64| {
        Spread::of(rounds.iter().map(|round| files as f64 / seconds(round))).to_string()
    };
    section.table(
        ["", "seconds", "files a second"],
        &[
            ["LISTING".into(), over(|r| r.listing).to_string(), rate(|r| r.listing)],
            ["VERIFYING".into(), over(|r| r.verifying).to_string(), rate(|r| r.verifying)],
            ["StartLoad to LOADED".into(), over(|r| r.whole).to_string(), rate(|r| r.whole)],
        ],
    );
    let peak = over(|round| round.peak);
    section.bars(&[("peak memory below 64 MB", format!("{peak} MB"), peak.median < BAR)]);
    let title = "Memory of the sidecar while it lists and verifies 100,000 files";
    let curve = rounds.first().map_or(&[][..], |round| round.memory.as_slice());
    section.plot(title, plot::timeline(title, "MB", &[("resident", curve)], BAR));
    section
}
