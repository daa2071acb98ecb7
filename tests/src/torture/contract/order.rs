//! What a load's sequence numbers and transitions promise.

use super::super::history::{Seen, What, shown};
use super::Evidence;
use alluxio_preload_api::v1::load::{Reason, State, Transition};
use std::collections::BTreeMap;
use std::time::Duration;

/// Changes that a load remembers; with fewer, it has not forgotten any.
const TOLD: usize = 16;

/// Who asks later never sees an older state; nor does a stream that goes on.
pub(super) fn only_forward(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for seen in evidence.loads.values() {
        // The newest that anybody had been answered by a time.
        let mut newest: Vec<(Duration, Seen<'_>)> = Vec::new();
        for one in seen {
            if newest.last().is_none_or(|(_, last)| one.load.sequence > last.load.sequence) {
                newest.push((one.ended, *one));
            }
        }
        for later in seen {
            let known = newest.partition_point(|(ended, _)| *ended <= later.begun);
            let Some((_, before)) = known.checked_sub(1).map(|last| newest[last]) else { continue };
            if later.load.sequence < before.load.sequence {
                broken.push(format!("{}, and then: {}", shown(before.load), shown(later.load)));
            }
        }
    }
    let mut streams = BTreeMap::<u64, u64>::new();
    for event in &evidence.history.events {
        let What::Told { stream, load } = &event.what else { continue };
        let last = streams.entry(*stream).or_default();
        if load.sequence < *last {
            broken.push(format!("watch {stream} had said #{last}: {event}"));
        }
        *last = load.sequence;
    }
    broken
}

/// A sequence number stands for one state of the load, and for one change: what was told once is never told
/// otherwise.
pub(super) fn one_course(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for (id, seen) in &evidence.loads {
        let (mut states, mut changes) = (BTreeMap::new(), BTreeMap::<u64, &Transition>::new());
        for one in seen {
            let first = states.entry(one.load.sequence).or_insert(one.load);
            if *first != one.load {
                broken.push(format!("two loads #{}: {first:?}, and {:?}", one.load.sequence, one.load));
            }
            for change in &one.load.transitions {
                let first = changes.entry(change.sequence).or_insert(change);
                if *first != change {
                    broken
                        .push(format!("two changes #{} of {id}: {first:?}, and {change:?}", change.sequence));
                }
            }
        }
        // No two answers may tell two courses: what one has left out, no other may have up to there.
        for one in seen {
            let told: Vec<_> = one.load.transitions.iter().map(|change| change.sequence).collect();
            let oldest = told.first().copied().filter(|_| told.len() >= TOLD).unwrap_or_default();
            let newest = one.load.sequence.max(oldest);
            let between = changes.range(oldest..=newest).map(|(sequence, _)| *sequence);
            if !between.eq(told.iter().copied()) {
                broken.push(format!("changes were told that {} does not know", shown(one.load)));
            }
        }
    }
    broken
}

/// States follow each other as the contract says, from QUEUED on and without a gap, go back only with a word of why,
/// and FAILED names a reason that is no fault of ours.
pub(super) fn legal_course(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for seen in evidence.loads.values() {
        let mut known = 0;
        for one in seen {
            let changes = &one.load.transitions;
            // Each is looked at once.
            if one.load.sequence <= known {
                continue;
            }
            known = one.load.sequence;
            let first = changes.first().map_or(one.load.state(), Transition::from);
            if changes.len() < TOLD && first != State::Queued {
                broken.push(format!("it begins with {first:?}: {}", shown(one.load)));
            }
            let gap = changes
                .windows(2)
                .find(|pair| pair[0].to() != pair[1].from() || pair[0].sequence >= pair[1].sequence);
            let wrong = changes.iter().find(|change| !is_legal(change));
            let last = changes
                .last()
                .filter(|change| change.to() != one.load.state() || change.sequence > one.load.sequence);
            if let Some(pair) = gap {
                broken.push(format!("a gap in {}: {pair:?}", shown(one.load)));
            }
            if let Some(change) = wrong.or(last) {
                broken.push(format!("{} by {change:?}", shown(one.load)));
            }
        }
    }
    broken
}

fn is_legal(change: &Transition) -> bool {
    use State::{Cancelled, Failed, Listing, Loaded, Loading, Queued, Stale, Verifying, Waiting};
    let has_word = !change.message.is_empty();
    let has_reason = has_word && !matches!(change.reason(), Reason::Unspecified | Reason::Internal);
    match (change.from(), change.to()) {
        (Queued, Waiting)
        | (Waiting, Listing)
        | (Listing, Loading | Verifying)
        | (Loading, Verifying)
        | (Verifying, Loaded) => true,
        // Back: a gate has shut, the sidecar was restarted, something is missing.
        (Listing | Loading | Verifying, Waiting) | (Verifying, Loading) => has_word,
        (Queued | Waiting | Listing | Loading | Verifying, Failed | Cancelled) => has_reason,
        (Loaded, Stale) => has_reason,
        _ => false,
    }
}
