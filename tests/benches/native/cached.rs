//! A load of what is in the cache already: how long a caller waits who was not sure.

use super::side::{Watched, native, words};
use super::tree::Tree;
use crate::Bench;
use crate::document::Section;
use crate::plot;
use alluxio_preload_api::v1::load::State;
use anyhow::{Result, ensure};
use preload_tests::stats::{Spread, number};
use preload_tests::{Setup, Sidecar};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
const COPIES: usize = 1;

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let scene = bench.scene().await?;
    let tree = bench.size(Tree::new(10, 1_000, 16_000), Tree::new(2, 100, 16_000));
    let rounds = bench.size(11, 2);
    let data = scene.cluster().data("cached")?;
    let base = tree.write(scene.cluster().sandbox().folder("base")?, tree.count())?;
    base.link(data.ufs())?;
    let sidecar = Setup::new(scene.cluster()).quiet().start().await?;
    bench.say(&format!("cached: loading {tree}"));
    again(&sidecar, "first", data.path()).await?;
    scene.cluster().oracle().assert_loaded(data.path(), COPIES).await?;

    let one = format!("{}/d0000/f000000", data.path());
    let (mut all_times, mut one_times) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (all, one) = (
            again(&sidecar, &format!("all-{round}"), data.path()).await?,
            again(&sidecar, &format!("one-{round}"), &one).await?,
        );
        bench.say(&format!(
            "cached: round {round} of {rounds}, {:.0} ms, one file {:.0} ms",
            all * 1e3,
            one * 1e3
        ));
        all_times.push(all * 1e3);
        one_times.push(one * 1e3);
    }
    drop(sidecar);
    scene.clear(&data).await?;

    let mut section = Section::new("native-cached", "Engine NATIVE: what is cached already");
    section.paragraph(&format!(
        "{tree} with one copy of each block in the cache, and one of these files: from before StartLoad to LOADED \
         as WatchLoad says it, each time a new load that lists and verifies every block. {rounds} rounds in turns."
    ));
    let name = tree.to_string();
    section.table(
        ["data", "StartLoad to LOADED, ms"],
        &[
            [name.clone(), Spread::of(all_times.iter().copied()).to_string()],
            ["one file of 16 kB".to_owned(), Spread::of(one_times.iter().copied()).to_string()],
        ],
    );
    let title = "StartLoad to LOADED of what is cached already";
    let (all, one) =
        (Spread::of(all_times.iter().copied()).median, Spread::of(one_times.iter().copied()).median);
    section.bars(&[
        ("10,000 files below 2 s", format!("{} ms", number(all)), all < 2_000.0),
        ("one file below 100 ms", format!("{} ms", number(one)), one < 100.0),
    ]);
    let rows = [(name, 0, all_times), ("one file of 16 kB".to_owned(), 1, one_times)];
    section.plot(title, plot::dots(title, "ms", &rows));
    Ok(section)
}

/// Seconds.
async fn again(sidecar: &Sidecar<'_>, id: &str, path: &str) -> Result<f64> {
    let Watched { seconds, load, .. } = native(sidecar, id, path, COPIES, LIMIT).await?;
    ensure!(load.state() == State::Loaded, "{}; {}", words(&load), sidecar.log_end());
    Ok(seconds)
}
