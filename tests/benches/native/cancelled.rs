//! CancelLoad half way: how soon the load has ended, and what the workers still bring in afterwards.

use super::scene::{Scene, load_metadata};
use super::tree::Tree;
use crate::Bench;
use crate::document::Section;
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{CancelLoadRequest, WatchLoadRequest};
use anyhow::{Context, Result, bail, ensure};
use preload_tests::stats::{Spread, number};
use preload_tests::{Setup, Sidecar, load, wait};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(600);
/// Nothing has come in for so long: nothing comes any more.
const QUIET: Duration = Duration::from_secs(3);

/// One round.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// From before CancelLoad to CANCELLED as WatchLoad says it, in milliseconds.
    cancelled: f64,
    /// MB that came into the cache after that.
    after: f64,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let scene = bench.scene().await?;
    let rounds = bench.size(5, 1);
    let small = bench.size(Tree::new(10, 1_000, 16_000), Tree::new(2, 500, 16_000));
    let big = bench.size(Tree::new(1, 10, 256_000_000), Tree::new(1, 4, 80_000_000));
    let sidecar = Setup::new(scene.cluster()).quiet().start().await?;
    let (mut rows, mut slowest) = (Vec::new(), 0.0_f64);
    for (shape, tree) in [small, big].into_iter().enumerate() {
        let mut found = Vec::new();
        for number in 1..=rounds {
            let round = one(scene, &sidecar, &tree, &format!("cancelled-{shape}-{number}")).await?;
            bench.say(&format!(
                "{tree}: {number} of {rounds}, CANCELLED after {:.0} ms, {:.0} MB after it",
                round.cancelled, round.after
            ));
            found.push(round);
        }
        let spread = |of: fn(&Round) -> f64| Spread::of(found.iter().map(of)).to_string();
        rows.push([tree.to_string(), spread(|round| round.cancelled), spread(|round| round.after)]);
        slowest = found.iter().map(|round| round.cancelled).fold(slowest, f64::max);
    }
    drop(sidecar);
    let mut section = Section::new("native-cancel", "Engine NATIVE: cancelled half way");
    section.paragraph(&format!(
        "{rounds} rounds for each shape, one copy: CancelLoad once a tenth is in the cache; until WatchLoad says \
         CANCELLED. A worker finishes what it was asked for before: at most 16 blocks each."
    ));
    section.table(["data", "CancelLoad to CANCELLED, ms", "MB cached after it"], &rows);
    section.bars(&[("cancelled within 1 s, at most", format!("{} ms", number(slowest)), slowest < 1_000.0)]);
    Ok(section)
}

async fn one(scene: &Scene, sidecar: &Sidecar<'_>, tree: &Tree, id: &str) -> Result<Round> {
    let base = tree.write(scene.cluster().sandbox().folder("base")?, tree.count())?;
    let data = scene.cluster().data("cancelled")?;
    base.link(data.ufs())?;
    load_metadata(&scene.client(), data.path()).await?;
    let cancelled = tokio::time::timeout(LIMIT, cancel(sidecar, id, data.path())).await;
    let cancelled = cancelled.context("the load was not cancelled in time")??;
    let at_once = scene.cluster().oracle().bytes_on_disk()?;
    ensure!(at_once < tree.bytes(), "everything was there before it was cancelled");
    let (mut last, mut since) = (at_once, Instant::now());
    wait::until("the workers to be quiet", LIMIT, async || {
        let now = scene.cluster().oracle().bytes_on_disk()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok((since.elapsed() > QUIET).then_some(()))
    })
    .await?;
    scene.clear(&data).await?;
    Ok(Round { cancelled, after: last.saturating_sub(at_once) as f64 / 1e6 })
}

/// Milliseconds.
async fn cancel(sidecar: &Sidecar<'_>, id: &str, path: &str) -> Result<f64> {
    let mut request = load(id, path, 1);
    if let Some(spec) = &mut request.spec {
        spec.set_engine(Engine::Native);
    }
    let mut client = sidecar.client()?;
    client.start_load(request).await.context("StartLoad")?;
    let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
    let mut stream = client.watch_load(request).await.context("WatchLoad")?.into_inner();
    let mut asked: Option<Instant> = None;
    while let Some(load) = stream.message().await.context("WatchLoad")? {
        if let (Some(asked), State::Cancelled) = (asked, load.state()) {
            return Ok(asked.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(!is_terminal(load.state(), false), "{:?} before it was cancelled", load.state());
        let progress = load.progress.unwrap_or_default();
        if asked.is_none() && progress.bytes_cached * 10 >= progress.bytes_total && progress.bytes_cached > 0
        {
            asked = Some(Instant::now());
            client.cancel_load(CancelLoadRequest { load_id: id.to_owned() }).await.context("CancelLoad")?;
        }
    }
    bail!("the watch ended before the load")
}
