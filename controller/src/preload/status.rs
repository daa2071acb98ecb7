//! The status of a Preload in words and conditions. Pure.
//!
//! Invariants: the same facts give the same status; what is not known at this moment (a sidecar that has not
//! been asked yet) leaves what was known before; lastTransitionTime moves with the status of a condition only.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    gates::Gate,
    load::{Answer, Contact, Load, State, shorten},
    plan::Observed,
    rerun::Cause,
};
use crate::api::{Phase, PreloadStatus, condition};

/// Longest message in a status, in characters.
const MAX_MESSAGE: usize = 1024;

/// Something that a person should hear of: an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

impl Notice {
    fn new(warning: bool, reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning, reason: reason.into(), note: shorten(&note.into(), MAX_MESSAGE) }
    }
}

/// Fills in phase, message, progress and conditions from what is known of the load `id`.
pub(super) fn describe(next: &mut PreloadStatus, observed: &Observed<'_>, id: &str, invalid: Option<&str>) {
    let seen = observed.seen.get(id);
    set_gates(next, observed, seen.map(|seen| &seen.contact));
    if matches!(next.phase, Phase::Failed | Phase::Cancelled) {
        return;
    }
    if let Some(problem) = invalid {
        fail(next, observed.now, "InvalidSpec", problem);
        return;
    }
    match seen.map(|seen| &seen.answer) {
        Some(Answer::Load(load)) => describe_load(next, observed.now, load),
        Some(Answer::Refused { message }) => fail(next, observed.now, "Refused", message),
        Some(Answer::NotFound) | None => next.message = pending(next, observed),
        Some(Answer::None) => {
            if let Some(Contact::Failing { message, .. }) = seen.map(|seen| &seen.contact)
                && next.phase == Phase::Pending
            {
                next.message = Some(message.clone());
            }
        }
    }
    next.message =
        next.message.take().map(|message| shorten(&message, MAX_MESSAGE)).filter(|m| !m.is_empty());
}

/// The first shut gate, or what is about to happen; of a load that runs unseen, what was said last.
fn pending(next: &PreloadStatus, observed: &Observed<'_>) -> Option<String> {
    if next.phase != Phase::Pending || next.submission.as_ref().is_some_and(|sent| sent.accepted) {
        return next.message.clone();
    }
    let cluster = observed.cluster;
    let shut = match (&cluster.master, &cluster.sidecar, &cluster.workers) {
        (Gate::Shut { message, .. }, _, _)
        | (_, Gate::Shut { message, .. }, _)
        | (_, _, Gate::Shut { message, .. }) => Some(message.clone()),
        _ => None,
    };
    match shut {
        Some(message) => Some(message),
        None if next.submission.is_some() => Some("starting the load".to_owned()),
        None => next.message.clone(),
    }
}

fn fail(next: &mut PreloadStatus, now: Timestamp, reason: &str, message: &str) {
    next.phase = Phase::Failed;
    next.reason = Some(reason.to_owned());
    next.message = Some(shorten(message, MAX_MESSAGE));
    next.completion_time = Some(seconds(now));
    set(next, now, condition::LOADED, "False", reason, message);
}

fn describe_load(next: &mut PreloadStatus, now: Timestamp, load: &Load) {
    if let Some(sent) = &mut next.submission {
        sent.accepted = true;
    }
    next.phase = match load.state {
        State::Queued | State::Waiting | State::Listing | State::Stale => Phase::Pending,
        State::Loading | State::Verifying => Phase::Loading,
        State::Loaded => Phase::Loaded,
        State::Failed => Phase::Failed,
        State::Cancelled => Phase::Cancelled,
    };
    let (word, sentence) = match load.state {
        State::Queued => ("Queued", "waiting for other loads in the sidecar"),
        State::Waiting => ("Waiting", "the sidecar waits"),
        State::Listing => ("Listing", "metadata are being loaded"),
        State::Loading => ("Loading", "data are being loaded"),
        State::Verifying => ("Verifying", "every block is being looked up"),
        State::Loaded => ("Loaded", "every block was seen in the cache"),
        State::Failed => ("Failed", "the load failed"),
        State::Cancelled => ("Cancelled", "the load was cancelled"),
        State::Stale => ("Stale", "the cache was lost"),
    };
    let reason = if load.reason.is_empty() { word } else { &load.reason };
    let message = if load.message.is_empty() { sentence } else { &load.message };
    next.message = Some(message.to_owned());
    next.reason = Some(load.reason.clone()).filter(|reason| !reason.is_empty());
    next.engine.clone_from(&load.engine);
    next.start_time = load.start_time.map(seconds);
    next.completion_time = load.state.is_over().then(|| seconds(load.end_time.unwrap_or(now)));
    next.progress.clone_from(&load.progress);
    next.failures.clone_from(&load.failures);
    if load.state == State::Loaded {
        next.retries = 0;
    }
    let listed = match load.state {
        State::Queued | State::Waiting => None,
        State::Listing => Some(("False", "Listing", "metadata are being loaded")),
        State::Loading | State::Verifying | State::Loaded | State::Stale => {
            Some(("True", "Listed", "every file is known"))
        }
        State::Failed | State::Cancelled => None,
    };
    if let Some((status, reason, message)) = listed {
        set(next, now, condition::METADATA_LOADED, status, reason, message);
    }
    let loaded = if load.state == State::Loaded { "True" } else { "False" };
    let reason = if load.state == State::Loaded && load.reason.is_empty() { "Verified" } else { reason };
    set(next, now, condition::LOADED, loaded, reason, message);
}

/// Conditions of a run that begins: nothing is loaded yet, or any more.
pub(super) fn withdraw(next: &mut PreloadStatus, observed: &Observed<'_>, cause: &Cause) {
    let reason = if cause.reason == "First" { "NotStarted" } else { cause.reason };
    set(next, observed.now, condition::METADATA_LOADED, "Unknown", reason, &cause.message);
    set(next, observed.now, condition::LOADED, "False", reason, &cause.message);
}

fn set_gates(next: &mut PreloadStatus, observed: &Observed<'_>, contact: Option<&Contact>) {
    let (cluster, now) = (observed.cluster, observed.now);
    set_gate(next, now, condition::MASTER_READY, &cluster.master, "the master's pod is ready");
    let workers = cluster.workers.open().copied().unwrap_or_default();
    set_gate(
        next,
        now,
        condition::WORKERS_READY,
        &cluster.workers,
        &format!("all {workers} workers are ready"),
    );
    let (status, reason, message) = match (&cluster.sidecar, contact) {
        (Gate::Shut { reason, message }, _) => ("False", *reason, message.as_str()),
        (Gate::Open(_), Some(Contact::Answering)) => ("True", "Answering", "the sidecar answers"),
        (Gate::Open(_), Some(Contact::Failing { reason, message })) => ("False", *reason, message.as_str()),
        (Gate::Open(_), Some(Contact::Connecting) | None) => {
            if next
                .conditions
                .iter()
                .any(|c| c.type_ == condition::SIDECAR_REACHABLE && c.status != "Unknown")
            {
                return;
            }
            ("Unknown", "Connecting", "the sidecar has not answered yet")
        }
    };
    set(next, now, condition::SIDECAR_REACHABLE, status, reason, message);
}

fn set_gate<T>(next: &mut PreloadStatus, now: Timestamp, type_: &str, gate: &Gate<T>, open: &str) {
    match gate {
        Gate::Open(_) => set(next, now, type_, "True", "Ready", open),
        Gate::Shut { reason, message } => set(next, now, type_, "False", reason, message),
    }
}

fn set(next: &mut PreloadStatus, now: Timestamp, type_: &str, status: &str, reason: &str, message: &str) {
    let message = shorten(message, MAX_MESSAGE);
    match next.conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = seconds(now);
            }
            (condition.status, condition.reason, condition.message) =
                (status.to_owned(), reason.to_owned(), message);
        }
        None => next.conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: seconds(now),
            observed_generation: None,
        }),
    }
}

/// As it comes back from the API server, which keeps whole seconds.
pub(super) fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// What people should hear of when `old` becomes `next`.
pub(super) fn notices(old: &PreloadStatus, next: &PreloadStatus, cause: Option<&Cause>) -> Vec<Notice> {
    let mut notices = Vec::new();
    let message = next.message.clone().unwrap_or_default();
    if let Some(cause) = cause.filter(|cause| cause.reason != "First") {
        let withdrawn = old.phase == Phase::Loaded;
        notices.push(Notice::new(withdrawn, cause.reason, format!("run {}: {}", next.run, cause.message)));
    }
    let first = old.run == 0;
    if next.phase != old.phase || first {
        match next.phase {
            Phase::Pending if cause.is_some() && !first => {}
            Phase::Pending => notices.push(Notice::new(!first, "Pending", message)),
            Phase::Loading => notices.push(Notice::new(false, "Loading", message)),
            Phase::Loaded => notices.push(Notice::new(false, "Loaded", loaded_note(next, &message))),
            Phase::Failed | Phase::Cancelled => {
                let word = next.reason.clone().unwrap_or_else(|| format!("{:?}", next.phase));
                notices.push(Notice::new(true, word, message));
            }
        }
    }
    let reachable = |status: &PreloadStatus| {
        status.conditions.iter().find(|c| c.type_ == condition::SIDECAR_REACHABLE).map(|c| c.status.clone())
    };
    if reachable(next).as_deref() == Some("False") && reachable(old).as_deref() == Some("True") {
        let why = next.conditions.iter().find(|c| c.type_ == condition::SIDECAR_REACHABLE);
        notices.push(Notice::new(true, "SidecarUnreachable", why.map_or("", |c| &c.message)));
    }
    notices
}

fn loaded_note(next: &PreloadStatus, message: &str) -> String {
    match &next.progress {
        Some(progress) => format!("{} files: {message}", progress.files_total),
        None => message.to_owned(),
    }
}

/// A deletion that did not wait any longer.
pub(super) fn abandoned(patience: Duration) -> Notice {
    let note = format!(
        "the sidecar did not confirm a cancellation within {} s; the load may go on",
        patience.as_secs()
    );
    Notice::new(true, "CancelAbandoned", note)
}
