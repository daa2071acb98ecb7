//! One shape of data at one replication: every side in turns.

use super::profile::Profile;
use super::scene::{Scene, load_metadata};
use super::side::{self, Done, Side};
use super::tree::{Base, Tree};
use crate::Bench;
use anyhow::{Context, Result, ensure};
use preload_tests::{Data, Setup, Sidecar};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) tree: Tree,
    pub(super) replicas: usize,
    /// Nobody has listed the files before the clock starts.
    pub(super) cold: bool,
    /// Times that NATIVE should be faster than this.
    pub(super) faster: Option<(Side, f64)>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) case: Case,
    pub(super) sides: Vec<(Side, Vec<Run>)>,
}

/// One load by one side.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) seconds: f64,
    pub(super) blocks: usize,
    /// Blocks of which there were enough copies right after it.
    pub(super) at_wish: usize,
    /// Bytes of the worker that had most over the mean of all; only where each block was wished for once.
    pub(super) balance: Option<f64>,
    /// What it said of itself, unless all is well.
    pub(super) said: String,
    /// Of NATIVE.
    pub(super) profile: Option<Profile>,
}

impl Run {
    pub(super) fn is_whole(&self) -> bool {
        self.at_wish == self.blocks && self.said.is_empty()
    }
}

impl Case {
    /// What can do it. `fs load` knows one copy, and only of files whose metadata are there.
    fn sides(&self) -> Vec<Side> {
        let mut sides = vec![Side::Native, Side::DistributedLoad];
        if self.cold {
            sides.push(Side::MetadataFirst);
        }
        if self.replicas == 1 && !self.cold {
            sides.push(Side::Load);
        }
        if !self.cold {
            sides.push(Side::Copy);
        }
        if !self.cold && self.tree.size >= 64_000_000 {
            sides.push(Side::ParallelCopy);
        }
        sides
    }

    pub(super) async fn run(&self, bench: &Bench, scene: &Scene, pairs: usize) -> Result<Found> {
        let base = self.tree.write(scene.cluster().sandbox().folder("base")?, self.tree.count())?;
        let sidecar = Setup::new(scene.cluster()).quiet().start().await?;
        let mut sides: Vec<_> = self.sides().into_iter().map(|side| (side, Vec::new())).collect();
        for pair in 1..=pairs {
            // Who comes first changes, as the second finds a warmer machine.
            let mut order: Vec<_> = sides.iter_mut().collect();
            if pair % 2 == 0 {
                order.reverse();
            }
            for (side, runs) in order {
                let run = self.one(scene, &sidecar, &base, *side).await.with_context(|| side.name())?;
                bench.say(&format!(
                    "{}: {pair} of {pairs}, {:.1} s by {}, {} of {} blocks {}",
                    self.name,
                    run.seconds,
                    side.name(),
                    run.at_wish,
                    run.blocks,
                    run.said
                ));
                runs.push(run);
            }
        }
        Ok(Found { case: self.clone(), sides })
    }

    async fn one(&self, scene: &Scene, sidecar: &Sidecar<'_>, base: &Base, side: Side) -> Result<Run> {
        let copies = self.replicas as u64;
        scene.ensure_room(side, base.tree().bytes() * copies)?;
        let data = scene.cluster().data("native")?;
        base.link(data.ufs())?;
        if side.caches() && !self.cold {
            let seen = load_metadata(&scene.client(), data.path()).await?;
            ensure!(seen == self.tree.count(), "the master sees {seen} of {} files", self.tree.count());
        }
        let done = side::run(side, scene, sidecar, &data, self.replicas).await?;
        if !side.caches() {
            std::fs::remove_dir_all(data.ufs()).context("remove the data")?;
            let blocks = self.tree.count();
            let Done { seconds, said, profile } = done;
            return Ok(Run { seconds, blocks, at_wish: blocks, balance: None, said, profile });
        }
        let run = self.count(scene, &data, done).await?;
        scene.clear(&data).await?;
        Ok(run)
    }

    /// On the workers' disks.
    async fn count(&self, scene: &Scene, data: &Data, done: Done) -> Result<Run> {
        let copies = scene.cluster().oracle().copies(data.path()).await?;
        ensure!(copies.files.len() == self.tree.count(), "Alluxio lists {} files", copies.files.len());
        let mut workers: BTreeMap<usize, u64> =
            (1..=scene.cluster().options().workers).map(|worker| (worker, 0)).collect();
        for block in copies.blocks() {
            for worker in &block.workers {
                *workers.entry(*worker).or_default() += block.length;
            }
        }
        let most = workers.values().copied().max().unwrap_or_default() as f64;
        let mean = workers.values().sum::<u64>() as f64 / workers.len() as f64;
        Ok(Run {
            seconds: done.seconds,
            blocks: copies.blocks().count(),
            at_wish: copies.blocks().filter(|block| block.workers.len() >= self.replicas).count(),
            balance: (self.replicas == 1 && mean > 0.0).then_some(most / mean),
            said: done.said,
            profile: done.profile,
        })
    }
}
