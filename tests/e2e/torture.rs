//! A short form of `make torture`.

use anyhow::{Result, ensure};
use preload_tests::oracle::Verdict;
use preload_tests::torture::history::What;
use preload_tests::torture::plan::Plan;
use preload_tests::torture::{Torture, Violation};
use preload_tests::{SmallDisk, stage};

/// Its first runs kill the sidecar and a worker, and move the clock.
const SEED: u64 = 1;
const RUNS: u64 = 2;

#[test]
fn clients_and_a_nemesis() -> Result<()> {
    SmallDisk::run(async |_, disk| {
        let cluster = stage::start_cluster().await?;
        let mut torture = Torture::set(&cluster, disk).await?;
        let (mut loaded, mut faults) = (0, 0);
        for number in 1..=RUNS {
            let outcome = torture.run(Plan::draw(SEED, number)).await?;
            let broken: Vec<_> = outcome.violations.iter().map(Violation::to_string).collect();
            ensure!(broken.is_empty(), "run {number} of seed {SEED}: {broken:#?}\n{}", outcome.log);
            for event in &outcome.history.events {
                match event.what {
                    What::Disk { verdict: Verdict::True, .. } => loaded += 1,
                    What::Fault(..) => faults += 1,
                    _ => {}
                }
            }
        }
        // Whoever never does anything breaks nothing.
        ensure!(loaded > 0 && faults > 0, "{loaded} LOADED, {faults} faults");
        drop(torture);
        cluster.stop()
    })
}
