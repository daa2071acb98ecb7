//! The status agrees with the sidecar, and with the cache itself, over the whole course of a load.

use std::time::{Duration, Instant};

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::{ListLoadsRequest, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::{MIB, wait};

use super::world::{NAME, World};

/// Longest contradiction; the bar of the project.
const LIMIT: Duration = Duration::from_secs(2);

/// What the runtime must show for a state.
fn wanted(state: State) -> &'static str {
    match state {
        State::Loading | State::Verifying => "DisLoading",
        State::Loaded => "Loaded",
        State::Failed | State::Cancelled => "Failed",
        _ => "NotStarted",
    }
}

#[tokio::test]
async fn no_phase_contradicts_the_sidecar_or_the_cache() -> Result<()> {
    let world = World::new("truth").await?;
    let data = world.data("truth", 240, MIB / 4)?;
    world.ready_runtime(data.path(), 1).await?;
    let client = world.sidecar.client()?;
    let id = wait::until("the load", wait::LIMIT, async || {
        let loads = client.clone().list_loads(ListLoadsRequest::default()).await?.into_inner().loads;
        Ok(loads.first().map(|load| load.id.clone()))
    })
    .await?;
    // The sidecar's own word, as it is spoken.
    let mut truth: Vec<(Instant, &str)> = Vec::new();
    let request = WatchLoadRequest { load_id: id, ..WatchLoadRequest::default() };
    let mut stream = client.clone().watch_load(request).await?.into_inner();
    while let Some(load) = stream.message().await? {
        let now = (Instant::now(), wanted(load.state()));
        if truth.last().is_none_or(|last| last.1 != now.1) {
            truth.push(now);
        }
    }
    world.shows("Loaded").await?;
    // The moment it is shown, every block is there.
    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;

    let shown: Vec<_> =
        world.runtimes.of(NAME).iter().map(|s| (s.at, s.text("/status/preloadStatus").to_owned())).collect();
    let begin = truth.first().context("no state was seen")?.0;
    let at = |time: Instant| {
        shown.iter().rev().find(|(since, _)| *since <= time).map_or("", |(_, status)| status.as_str())
    };
    let told =
        |time: Instant| truth.iter().rev().find(|(since, _)| *since <= time).map_or("", |(_, status)| status);
    let end = shown.last().context("nothing was shown")?.0;
    let mut since: Option<Instant> = None;
    let mut longest = Duration::ZERO;
    let mut time = begin;
    while time <= end {
        if at(time) == told(time) {
            since = None;
        } else {
            let since = *since.get_or_insert(time);
            longest = longest.max(time.duration_since(since));
        }
        time += Duration::from_millis(10);
    }
    eprintln!("longest contradiction: {longest:?}");
    ensure!(longest <= LIMIT, "{longest:?}: the sidecar said {truth:?}, the runtime {shown:?}");
    for state in world.preloads.of(NAME) {
        let (percent, phase) = (state.number("/status/progress/percent"), state.text("/status/phase"));
        ensure!(phase != "Loaded" || percent == 100, "Loaded at {percent}%");
    }
    world.preloads.assert_paced(NAME)?;
    world.controller.assert_no_errors()
}
