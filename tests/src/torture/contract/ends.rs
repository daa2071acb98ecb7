//! How it ends: for every load, for every watcher, in the cache, and on the machine.

use super::super::history::{What, shown};
use super::Evidence;
use crate::oracle::Verdict;
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use std::collections::{BTreeMap, BTreeSet};

/// A watch that ends by itself has told the end, and all who were told one were told the same.
pub(super) fn streams(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    let mut last = BTreeMap::<u64, &Load>::new();
    let mut ends = BTreeMap::<&str, &Load>::new();
    for event in &evidence.history.events {
        match &event.what {
            What::Told { stream, load } => {
                last.insert(*stream, load);
            }
            What::StreamEnded { stream, id, follow, answer: Ok(()) } => {
                let told = last.get(stream).copied();
                match told {
                    Some(load) if is_terminal(load.state(), *follow) => {
                        let first = ends.entry(id).or_insert(load);
                        if !same_end(first, load) {
                            broken.push(format!("{}, and {}", shown(first), shown(load)));
                        }
                    }
                    told => broken.push(format!("{event}, last with {:?}", told.map(shown))),
                }
            }
            _ => {}
        }
    }
    broken
}

/// LOADED may be withdrawn later; nothing else changes.
fn same_end(one: &Load, other: &Load) -> bool {
    let withdrawn = |a: &Load, b: &Load| a.state() == State::Loaded && b.state() == State::Stale;
    one.state() == other.state() || withdrawn(one, other) || withdrawn(other, one)
}

/// Once all is well, every load that was acknowledged is known and has ended, as all who were told an end say. It is
/// CANCELLED where that was promised, and only where somebody asked for it.
pub(super) fn ended(evidence: &Evidence<'_>) -> Vec<String> {
    let Some(settled) = evidence.history.settled else {
        return vec!["the run never came to rest".to_owned()];
    };
    let mut broken = Vec::new();
    let (mut last, mut asked) = (BTreeMap::<&str, &Load>::new(), BTreeSet::<&str>::new());
    let mut promised = BTreeSet::<&str>::new();
    for event in &evidence.history.events {
        match &event.what {
            What::Cancel { id, answer } => {
                asked.insert(id);
                if answer.as_ref().is_ok_and(|load| !is_terminal(load.state(), false)) {
                    promised.insert(id);
                }
            }
            What::Get { id, answer } if event.begun >= settled => match answer {
                Ok(load) => {
                    last.insert(id, load);
                }
                Err(_) => broken.push(format!("nothing is in the way any more, but: {event}")),
            },
            What::List { answer: Err(_) } if event.begun >= settled => {
                broken.push(format!("nothing is in the way any more, but: {event}"));
            }
            _ => {}
        }
    }
    for (id, seen) in &evidence.loads {
        let Some(end) = last.get(id) else {
            broken.push(format!("nobody asked for the end of {id}"));
            continue;
        };
        if !is_terminal(end.state(), false) {
            broken.push(format!("it never ends: {}", shown(end)));
        }
        if end.state() == State::Cancelled && !asked.contains(id) {
            broken.push(format!("nobody cancelled it: {}", shown(end)));
        }
        if end.state() != State::Cancelled && promised.contains(id) {
            broken.push(format!("CancelLoad was acknowledged, and at last: {}", shown(end)));
        }
        let other = seen.iter().find(|one| is_terminal(one.load.state(), false) && !same_end(one.load, end));
        if let Some(other) = other {
            broken.push(format!("{}, and at last {}", shown(other.load), shown(end)));
        }
    }
    broken
}

/// LOADED is true on the workers' disks, at which somebody looked.
pub(super) fn loaded(evidence: &Evidence<'_>) -> Vec<String> {
    let (mut broken, mut judged, mut last) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for event in &evidence.history.events {
        match &event.what {
            What::Disk { id, verdict } => {
                judged.insert(id.as_str());
                if let Verdict::False(words) = verdict {
                    broken.push(format!("{id}: {words}"));
                }
            }
            What::Get { id, answer: Ok(load) } => {
                last.insert(id.as_str(), load.state());
            }
            _ => {}
        }
    }
    let unseen = last.iter().filter(|(id, state)| **state == State::Loaded && !judged.contains(*id));
    broken.extend(unseen.map(|(id, _)| format!("{id} is LOADED, and nobody has looked at the disks")));
    broken
}

/// One command for a load at a time, and none at the end; no job, no process.
pub(super) fn nothing_left(evidence: &Evidence<'_>) -> Vec<String> {
    let left = evidence
        .history
        .events
        .iter()
        .filter(|event| matches!(event.what, What::TwoCommands { .. } | What::Left(_)));
    left.map(ToString::to_string).collect()
}
