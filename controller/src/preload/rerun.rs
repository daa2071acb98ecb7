//! Why a Preload needs another run. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    failure,
    load::{Answer, Load, State},
    load_id::load_id,
    plan::Observed,
};
use crate::api::Phase;

/// Data that stayed in the cache for so long were not loaded in vain.
const CALM: Duration = Duration::from_secs(3600);

/// What makes the next run, with words for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// `First` for the first run.
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Counts as one more try of the same.
    pub(super) retry: bool,
    /// How often in a row data have left the cache soon.
    pub(super) evictions: i32,
    /// The run waits until then.
    pub(super) not_before: Option<Timestamp>,
}

impl Cause {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: false, evictions: 0, not_before: None }
    }
}

/// None: the present run stands.
pub(super) fn cause(observed: &Observed<'_>) -> Option<Cause> {
    let (subject, cluster) = (&observed.subject, observed.cluster);
    let status = subject.status;
    if status.run == 0 {
        return Some(Cause::new("First", "waiting for the gates"));
    }
    let ended = matches!(status.phase, Phase::Failed | Phase::Cancelled);
    let edited = status.observed_generation != Some(subject.generation);
    let id = load_id(subject.uid, subject.spec, status.run);
    if status.load_id.as_deref() != Some(id.as_str()) || (edited && ended) {
        return Some(Cause::new("SpecChanged", "the spec was changed"));
    }
    if let Some(retry) = retry_at(observed)
        && retry <= observed.now
    {
        return Some(Cause { retry: true, ..Cause::new("Retry", "trying again") });
    }
    let submission = status.submission.as_ref().filter(|_| !ended)?;
    if cluster.pod_uid.as_deref() != Some(submission.pod_uid.as_str()) {
        let message = format!("pod {} is gone, and with it the cache that was loaded", submission.pod);
        return Some(Cause::new("MasterReplaced", message));
    }
    if status.phase == Phase::Loaded
        && cluster.mount_time.is_some()
        && cluster.mount_time != submission.mount_time
    {
        return Some(Cause::new("MountsChanged", "Fluid has mounted something since"));
    }
    match &observed.seen.get(&id)?.answer {
        Answer::NotFound if submission.accepted => Some(Cause::new(
            "LoadForgotten",
            format!("the sidecar in {} does not know the load any more", submission.pod),
        )),
        Answer::Load(load) if load.state == State::Stale => Some(withdrawn(observed, load, &id)),
        Answer::None | Answer::NotFound | Answer::Refused { .. } | Answer::Load(_) => None,
    }
}

/// What follows a load that the sidecar has withdrawn.
fn withdrawn(observed: &Observed<'_>, load: &Load, id: &str) -> Cause {
    let message = if load.message.is_empty() { "the cache was lost" } else { &load.message };
    match load.reason.as_str() {
        "Evicted" => evicted(observed, load, id, message),
        "PathNotFound" => Cause::new("PathNotFound", message),
        _ => Cause::new("CacheLost", message),
    }
}

/// The first time it is loaded again at once. Data that leave again and again have no room, or somebody frees them:
/// loading them all the time would only push out others.
fn evicted(observed: &Observed<'_>, load: &Load, id: &str, message: &str) -> Cause {
    let stayed = load.end_time.and_then(|ended| Duration::try_from(observed.now.duration_since(ended)).ok());
    let calm = stayed.is_some_and(|stayed| stayed >= CALM);
    let evictions = if calm { 1 } else { observed.subject.status.evictions.saturating_add(1) };
    let cause = Cause { evictions, ..Cause::new("Evicted", message) };
    if evictions < 2 {
        return cause;
    }
    let pause = failure::delay(evictions - 2, id);
    let message =
        format!("{message}; {evictions} times in a row, so it is loaded again in {} s", pause.as_secs());
    // Out of the range of timestamps is now.
    Cause { message, not_before: observed.now.checked_add(pause).ok(), ..cause }
}

/// When a run that failed is tried again; None: only after a change of the spec.
pub(super) fn retry_at(observed: &Observed<'_>) -> Option<Timestamp> {
    let status = observed.subject.status;
    let reason = status.reason.as_deref().unwrap_or_default();
    if status.phase != Phase::Failed || !failure::is_transient(reason) {
        return None;
    }
    let ended = status.completion_time.as_ref().map_or(observed.now, |time| time.0);
    let delay = failure::delay(status.retries, status.load_id.as_deref().unwrap_or_default());
    // Out of the range of timestamps is never.
    ended.checked_add(delay).ok()
}
