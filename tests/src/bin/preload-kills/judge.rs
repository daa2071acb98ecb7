//! Whether LOADED is true, by block files on the workers' disks.
//!
//! LOADED promises that every block had its copies at one instant between the beginning of the verification and
//! now. So what a worker that was killed after this beginning held may be gone; nothing else may.

use crate::follow::entered;
use crate::run::{Killed, Who};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::Result;
use preload_tests::oracle::Tree;
use preload_tests::{Cluster, Role};
use std::collections::BTreeSet;
use std::time::SystemTime;

/// Blocks that are named where many are missing.
const SHOWN: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every block is there, on workers that live, and is what was to be loaded.
    True,
    /// Copies are missing that were on a worker which was killed while the verification went on.
    DiedMeanwhile,
    False(String),
}

/// Workers that run and have registered: taken at once, as the dead ones come back.
pub(crate) fn alive(cluster: &Cluster) -> Result<BTreeSet<usize>> {
    let mut alive = BTreeSet::new();
    for worker in 1..=cluster.options().workers {
        if cluster.is_registered(Role::Worker(worker))? {
            alive.insert(worker);
        }
    }
    Ok(alive)
}

pub(crate) fn judge(
    load: &Load,
    tree: &Tree<'_>,
    alive: &BTreeSet<usize>,
    files: usize,
    kills: &[Killed],
) -> Result<Verdict> {
    let replicas = load.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) as usize;
    let copies = tree.copies_on(alive)?;
    if copies.files.len() != files {
        return Ok(Verdict::False(format!("{} of {files} files are listed", copies.files.len())));
    }
    let missing = copies.missing(replicas);
    let Some(first) = missing.first() else {
        return Ok(match tree.compare_contents(&copies) {
            Ok(()) => Verdict::True,
            Err(error) => Verdict::False(format!("{error:#}")),
        });
    };
    let began = entered(load, State::Verifying).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut lived = alive.clone();
    lived.extend(kills.iter().filter(|kill| kill.after >= began).filter_map(|kill| match kill.who {
        Who::Worker(worker) => Some(worker),
        Who::Sidecar => None,
    }));
    if tree.copies_on(&lived)?.missing(replicas).is_empty() {
        return Ok(Verdict::DiedMeanwhile);
    }
    let lacking = || copies.blocks().filter(|block| block.workers.len() < replicas);
    let some: Vec<_> = lacking().take(SHOWN).collect();
    Ok(Verdict::False(format!(
        "{} of {files} files, {} blocks, lack copies on the workers {alive:?}, such as {first}, {some:?}",
        missing.len(),
        lacking().count()
    )))
}
