//! Engine NATIVE against the ways that Alluxio itself has, and against cp, the limit: the same data, in turns.
//!
//! Sections: a shape of data each (`native-small`, `native-middle`, `native-big`), `native-cold` for files that Alluxio
//! has not seen, `native-cached` for what is there already, `native-cancel` for what ends early, `native-memory` for what
//! the sidecar takes of the machine.
//!
//! Invariants: each run has a fresh directory whose metadata nobody has seen, or all have; what a side has done
//! is counted on the workers' disks, never believed; before the next run the cache is empty again.

mod cached;
mod cancelled;
mod case;
mod memory;
mod profile;
mod report;
mod scene;
mod side;
mod tree;

use crate::Bench;
use crate::document::Section;
use anyhow::Result;
use case::{Case, Found};
pub(crate) use scene::Scene;
use side::Side;
use tree::Tree;

/// Of all shapes they take half an hour.
const PAIRS: usize = 5;

pub(crate) async fn small(bench: &Bench) -> Result<Section> {
    let tree = bench.size(Tree::new(10, 1_000, 16_000), Tree::new(2, 100, 16_000));
    let name = format!("{tree}");
    let cases = [
        Case {
            name: format!("{name}, 1 copy"),
            tree,
            replicas: 1,
            cold: false,
            faster: Some((Side::DistributedLoad, 5.0)),
        },
        Case { name: format!("{name}, 2 copies"), tree, replicas: 2, cold: false, faster: None },
    ];
    compare(bench, "native-small", &format!("Engine NATIVE: {name}"), &cases).await
}

/// Files that nobody has listed before. distributedLoad alone is there to be seen; what it is compared with is what
/// people do who know it.
pub(crate) async fn cold(bench: &Bench) -> Result<Section> {
    let tree = bench.size(Tree::new(10, 1_000, 16_000), Tree::new(2, 100, 16_000));
    let name = format!("{tree}, 1 copy, cold metadata");
    let faster = Some((Side::MetadataFirst, 3.0));
    let title = format!("Engine NATIVE: {name}");
    let case = Case { name, tree, replicas: 1, cold: true, faster };
    compare(bench, "native-cold", &title, &[case]).await
}

pub(crate) async fn middle(bench: &Bench) -> Result<Section> {
    let tree = bench.size(Tree::new(1, 1_000, 1_000_000), Tree::new(1, 20, 1_000_000));
    warm(bench, "native-middle", tree, None).await
}

pub(crate) async fn big(bench: &Bench) -> Result<Section> {
    let tree = bench.size(Tree::new(1, 10, 256_000_000), Tree::new(1, 2, 80_000_000));
    warm(bench, "native-big", tree, Some(1.5)).await
}

pub(crate) use cached::run as cached;
pub(crate) use cancelled::run as cancelled;
pub(crate) use memory::run as memory;

/// Both replications, with metadata that is there.
async fn warm(bench: &Bench, section: &'static str, tree: Tree, faster: Option<f64>) -> Result<Section> {
    let faster = faster.map(|times| (Side::DistributedLoad, times));
    let cases = [1, 2].map(|replicas| {
        let copies = if replicas == 1 { "copy" } else { "copies" };
        Case { name: format!("{tree}, {replicas} {copies}"), tree, replicas, cold: false, faster }
    });
    compare(bench, section, &format!("Engine NATIVE: {tree}"), &cases).await
}

async fn compare(bench: &Bench, name: &'static str, title: &str, cases: &[Case]) -> Result<Section> {
    let scene = bench.scene().await?;
    scene.warm_up(bench).await?;
    let pairs = bench.size(PAIRS, 1);
    let mut found: Vec<Found> = Vec::new();
    for case in cases {
        found.push(case.run(bench, scene, pairs).await?);
    }
    Ok(report::section(name, title, pairs, &found))
}
