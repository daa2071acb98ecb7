//! The same load by the sidecar and by `alluxio fs distributedLoad` by hand: what our care costs on top.

use crate::document::Section;
use crate::{Bench, plot};
use alluxio_preload_api::v1::load::State;
use anyhow::{Result, bail};
use preload_tests::stats::Spread;
use preload_tests::{Cluster, Data, Setup, load};
use std::time::Instant;

/// Name, files, bytes of each.
const SHAPES: [(&str, usize, u64); 2] = [("200 x 16 kB", 200, 16_000), ("5 x 20 MB", 5, 20_000_000)];

#[derive(Debug, Default)]
struct Sides {
    sidecar: Vec<f64>,
    by_hand: Vec<f64>,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let cluster = bench.cluster().await?;
    let pairs = bench.size(5, 1);
    let mut found: [Sides; SHAPES.len()] = Default::default();
    for pair in 1..=pairs {
        for ((name, files, size), sides) in SHAPES.iter().zip(&mut found) {
            bench.say(&format!("overhead: pair {pair} of {pairs}, {name}"));
            let ours = cluster.data("ours")?;
            let theirs = cluster.data("theirs")?;
            for data in [&ours, &theirs] {
                data.files(*files, *size)?;
            }
            // Who comes first changes, as the second finds a warmer machine.
            if pair % 2 == 0 {
                sides.sidecar.push(by_sidecar(cluster, &ours).await?);
                sides.by_hand.push(by_hand(cluster, &theirs).await?);
            } else {
                sides.by_hand.push(by_hand(cluster, &theirs).await?);
                sides.sidecar.push(by_sidecar(cluster, &ours).await?);
            }
        }
    }
    Ok(report(&found))
}

/// From StartLoad to a verified LOADED, in a sidecar that runs already.
async fn by_sidecar(cluster: &Cluster, data: &Data) -> Result<f64> {
    let sidecar = Setup::new(cluster).quiet().start().await?;
    let begun = Instant::now();
    sidecar.start_load(load("ours", data.path(), 1)).await?;
    sidecar.in_state("ours", State::Loaded).await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// From the start of the command to its end. It says that it loaded everything also when it did not, so
/// that is looked at on the disks, outside the time.
async fn by_hand(cluster: &Cluster, data: &Data) -> Result<f64> {
    let begun = Instant::now();
    cluster.alluxio(&["fs", "distributedLoad", data.path()]).await?.success()?;
    let took = begun.elapsed().as_secs_f64();
    let copies = cluster.oracle().tree(data.path()).await?.copies()?;
    if let Some(block) = copies.blocks().find(|block| block.workers.is_empty()) {
        bail!("distributedLoad left out {block:?}");
    }
    Ok(took)
}

fn report(found: &[Sides; SHAPES.len()]) -> Section {
    let mut section = Section::new("overhead", "The sidecar against distributedLoad by hand");
    section.paragraph(&format!(
        "Cold data, one copy, a two-worker Alluxio, {} pairs in turns. By hand: from the start of \
         `alluxio fs distributedLoad` to its end, which proves nothing. The sidecar: from StartLoad to \
         LOADED; it runs the same command, lists before and verifies every block after it.",
        found[0].sidecar.len()
    ));
    let mut rows = Vec::new();
    let mut dots = Vec::new();
    for ((name, ..), sides) in SHAPES.iter().zip(found) {
        let on_top = sides.sidecar.iter().zip(&sides.by_hand).map(|(ours, theirs)| ours - theirs);
        rows.push([
            (*name).to_owned(),
            Spread::of(sides.by_hand.iter().copied()).to_string(),
            Spread::of(sides.sidecar.iter().copied()).to_string(),
            Spread::of(on_top).to_string(),
        ]);
        dots.push((format!("{name}, by hand"), 0, sides.by_hand.clone()));
        dots.push((format!("{name}, sidecar"), 1, sides.sidecar.clone()));
    }
    section.table(["data", "by hand, s", "sidecar, s", "on top, s"], &rows);
    let title = "From the command to cached: dots are runs, lines medians";
    section.plot(title, plot::dots(title, "seconds", &dots));
    section
}
