//! Whether LOADED is true, although something was killed.
//!
//! LOADED promises that every block had its copies at one instant between the beginning of the verification and
//! now. So what a worker that was killed after this beginning held may be gone; nothing else may.

use crate::run::{Killed, Who};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::Result;
use preload_tests::entered;
use preload_tests::oracle::{Disks, Tree, Verdict};
use std::collections::BTreeSet;
use std::time::SystemTime;

pub(crate) fn judge(
    load: &Load,
    tree: &Tree<'_>,
    disks: &Disks,
    alive: &BTreeSet<usize>,
    files: usize,
    kills: &[Killed],
) -> Result<Verdict> {
    let replicas = load.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) as usize;
    let began = entered(load, State::Verifying).unwrap_or(SystemTime::UNIX_EPOCH);
    let died = kills.iter().filter(|kill| kill.after >= began).filter_map(|kill| match kill.who {
        Who::Worker(worker) => Some(worker),
        Who::Sidecar => None,
    });
    tree.judge(disks, files, replicas, alive, &died.collect())
}
