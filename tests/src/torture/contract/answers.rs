//! What answers owe to earlier ones: nothing is lost, nothing is another's.

use super::super::history::{Event, What};
use super::Evidence;
use alluxio_preload_api::v1::LoadSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::Code;

/// A load that was acknowledged is found by everybody who asks later.
pub(super) fn kept(evidence: &Evidence<'_>) -> Vec<String> {
    let mut acknowledged = BTreeMap::<&str, Duration>::new();
    for (id, seen) in &evidence.loads {
        if let Some(first) = seen.first() {
            acknowledged.insert(id, first.ended);
        }
    }
    let mut broken = Vec::new();
    for event in &evidence.history.events {
        match &event.what {
            What::Get { id, answer: Err(refusal) }
            | What::Cancel { id, answer: Err(refusal) }
            | What::Verify { id, answer: Err(refusal) }
            | What::StreamEnded { id, answer: Err(refusal), .. }
                if refusal.code == Code::NotFound
                    && acknowledged.get(id.as_str()).is_some_and(|at| *at <= event.begun) =>
            {
                broken.push(format!("{id} was acknowledged, and then: {event}"));
            }
            What::List { answer: Ok(loads) } => {
                let listed: BTreeSet<_> = loads.iter().map(|load| load.id.as_str()).collect();
                let lost =
                    acknowledged.iter().filter(|(id, at)| **at <= event.begun && !listed.contains(*id));
                broken
                    .extend(lost.map(|(id, _)| format!("{id} was acknowledged, and is not listed: {event}")));
            }
            _ => {}
        }
    }
    broken
}

/// A load is taken in the end: it is asked for once more when all is mended.
pub(super) fn taken(evidence: &Evidence<'_>) -> Vec<String> {
    let mut asked = BTreeMap::<&str, Vec<&Event>>::new();
    let mut taken = BTreeSet::new();
    for event in &evidence.history.events {
        let What::Start { request, answer } = &event.what else { continue };
        asked.entry(&request.load_id).or_default().push(event);
        match answer {
            Ok(_) => _ = taken.insert(request.load_id.as_str()),
            Err(refusal) if refusal.code == Code::AlreadyExists => _ = taken.insert(&request.load_id),
            Err(_) => {}
        }
    }
    asked.retain(|id, _| !taken.contains(id));
    let last = |(id, events): (&str, Vec<&Event>)| {
        let last = events.last().map(ToString::to_string).unwrap_or_default();
        format!("{id} was asked for {} times, and never taken: {last}", events.len())
    };
    asked.into_iter().map(last).collect()
}

/// An id stands for one load, with one wish, for ever.
pub(super) fn one_load(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for (id, seen) in &evidence.loads {
        let Some(first) = seen.first() else { continue };
        let other = seen.iter().find(|other| {
            other.load.uid != first.load.uid
                || other.load.create_time != first.load.create_time
                || wish(other.load.spec.as_ref()) != wish(first.load.spec.as_ref())
        });
        if let Some(other) = other {
            broken.push(format!(
                "{id} was {} of {:?}, and is {} of {:?}",
                first.load.uid, first.load.spec, other.load.uid, other.load.spec
            ));
        }
    }
    broken
}

/// StartLoad acknowledges what was asked for, and refuses an id only where it stands for something else.
pub(super) fn as_wished(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for event in &evidence.history.events {
        let What::Start { request, answer } = &event.what else { continue };
        match answer {
            Ok(load)
                if load.id != request.load_id || wish(load.spec.as_ref()) != wish(request.spec.as_ref()) =>
            {
                broken.push(format!("asked for {request:?}, answered {load:?}"));
            }
            Err(refusal) if refusal.code == Code::AlreadyExists => {
                let differs = |other: &Event| match &other.what {
                    What::Start { request: other, .. } => {
                        other.load_id == request.load_id
                            && wish(other.spec.as_ref()) != wish(request.spec.as_ref())
                    }
                    _ => false,
                };
                let before = |other: &&Event| other.begun <= event.ended;
                let known = evidence.loads.get(request.load_id.as_str()).and_then(|seen| seen.first());
                if known.is_some_and(|known| wish(known.load.spec.as_ref()) == wish(request.spec.as_ref())) {
                    broken.push(format!("it is the load that was asked for: {event}"));
                } else if !evidence.history.events.iter().filter(before).any(differs) {
                    broken.push(format!("nobody had asked for anything else: {event}"));
                }
            }
            _ => {}
        }
    }
    broken
}

/// Faults make a sidecar unavailable; they do not make it confused.
pub(super) fn known_refusals(evidence: &Evidence<'_>) -> Vec<String> {
    let confused = |event: &&Event| {
        event.refusal().is_some_and(|refusal| match (refusal.code, &event.what) {
            // Only these can mean anything by it.
            (Code::AlreadyExists, what) => !matches!(what, What::Start { .. }),
            (Code::FailedPrecondition, What::Verify { .. }) => false,
            (Code::FailedPrecondition, _) => !evidence.history.disk_was_useless(event),
            (Code::NotFound, what) => matches!(what, What::Start { .. } | What::List { .. }),
            (code, _) => matches!(
                code,
                Code::Internal
                    | Code::DataLoss
                    | Code::Unimplemented
                    | Code::InvalidArgument
                    | Code::OutOfRange
                    | Code::Unauthenticated
                    | Code::PermissionDenied
            ),
        })
    };
    evidence.history.events.iter().filter(confused).map(ToString::to_string).collect()
}

/// What two specs must share to be the same wish.
fn wish(spec: Option<&LoadSpec>) -> Option<(&str, u32, i32)> {
    spec.map(|spec| (spec.path.as_str(), spec.replicas.unwrap_or(1), spec.engine))
}
