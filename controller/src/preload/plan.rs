//! What a Preload needs next: a pure function of what was observed.
//!
//! Invariants, held by the tests below: planning on the result of a plan changes nothing; an order to start
//! implies that all gates are open in the same observation, and that run, id and pod are in the status already;
//! a load that was replaced is ordered cancelled until it is over.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    gates::{Cluster, Endpoint},
    load::{Contact, Seen},
    load_id::load_id,
    rerun::{self, Cause},
    status::{self, Notice},
};
use crate::api::{Engine, Phase, PreloadSpec, PreloadStatus, Submission};

/// The Preload itself.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub generation: i64,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// Our finalizer is there.
    pub finalizer: bool,
    pub spec: &'a PreloadSpec,
    pub status: &'a PreloadStatus,
}

/// Everything that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub subject: Subject<'a>,
    pub cluster: &'a Cluster,
    /// By load id.
    pub seen: &'a BTreeMap<String, Seen>,
    pub now: Timestamp,
    /// How long a deletion may wait for a cancellation.
    pub deletion_patience: Duration,
}

impl Observed<'_> {
    /// Of a load that is known by id.
    fn seen(&self, id: &str) -> Option<&Seen> {
        self.seen.get(id)
    }

    /// The gates that the API server shows; a start cannot go past a sidecar that does not answer.
    fn objects_are_ready(&self) -> bool {
        let cluster = self.cluster;
        cluster.master.open().is_some()
            && cluster.workers.open().is_some()
            && cluster.sidecar.open().is_some()
    }

    /// Every gate but that of the metadata, which the sidecar holds.
    fn gates_are_open(&self, id: &str) -> bool {
        self.objects_are_ready() && self.seen(id).is_some_and(|seen| seen.contact == Contact::Answering)
    }
}

/// What to do about our finalizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finalizer {
    #[default]
    Keep,
    Add,
    Remove,
}

/// What a sidecar is asked for, about one load. An order stands until another takes its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub load_id: String,
    pub endpoint: Endpoint,
    pub intent: Intent,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Watch it, if it is there.
    Look,
    /// Start it unless it is there, then watch it.
    Start(Box<Wish>),
    /// Cancel it, and watch it until it is over.
    Cancel,
}

/// The load as the sidecar is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub path: String,
    pub replicas: u32,
    pub engine: Engine,
    pub timeout: Option<Duration>,
    pub reverify_interval: Option<Duration>,
    pub max_bytes_per_second: Option<u64>,
    pub min_workers: u32,
    pub labels: BTreeMap<String, String>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub finalizer: Finalizer,
    /// None: the status is as it should be.
    pub status: Option<PreloadStatus>,
    /// Told once the status is written.
    pub notices: Vec<Notice>,
    /// All that this Preload asks of sidecars now; what is not in it ends. It follows from the status as it is,
    /// whether or not another one has to be written.
    pub orders: Vec<Order>,
    /// Look again then, even if nothing happens.
    pub again_at: Option<Timestamp>,
}

/// The next steps for a Preload.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let subject = &observed.subject;
    if let Some(deleted) = subject.deleted {
        return plan_deletion(observed, deleted);
    }
    if !subject.finalizer {
        return Plan { finalizer: Finalizer::Add, ..Plan::default() };
    }
    let mut next = subject.status.clone();
    next.cancelling.retain(|id| !observed.seen(id).is_some_and(Seen::is_over));
    let cause = rerun::cause(observed);
    if let Some(cause) = &cause {
        begin_run(&mut next, observed, cause);
    }
    next.observed_generation = Some(subject.generation);
    let id = next.load_id.clone().unwrap_or_default();
    let wish = wish(subject, observed.cluster);
    if next.submission.is_none()
        && next.phase == Phase::Pending
        && wish.is_ok()
        && next.not_before.as_ref().is_none_or(|time| time.0 <= observed.now)
        && observed.gates_are_open(&id)
        && let Some(endpoint) = observed.cluster.sidecar.open()
    {
        next.submission = Some(Submission {
            pod: endpoint.pod.clone(),
            pod_uid: endpoint.pod_uid.clone(),
            mount_time: observed.cluster.mount_time.clone(),
            accepted: false,
        });
    }
    // A limit that cannot be read does not end a load that runs: it counts from the next run on.
    let invalid = wish.as_ref().err().filter(|_| next.submission.is_none());
    status::describe(&mut next, observed, &id, invalid.map(String::as_str));
    let pause = next.not_before.as_ref().map(|time| time.0).filter(|time| *time > observed.now);
    let again_at = rerun::retry_at(observed).or(pause);
    let changed = next != *subject.status;
    let notices = if changed { status::notices(subject.status, &next, cause.as_ref()) } else { Vec::new() };
    let orders = orders(observed, &id, wish.ok().filter(|_| cause.is_none()));
    Plan { finalizer: Finalizer::Keep, status: changed.then_some(next), notices, orders, again_at }
}

/// The next run, with what the last one left to cancel.
fn begin_run(next: &mut PreloadStatus, observed: &Observed<'_>, cause: &Cause) {
    let subject = &observed.subject;
    let over = matches!(next.phase, Phase::Loaded | Phase::Failed | Phase::Cancelled);
    if let Some(old) = next.load_id.take()
        && next.submission.is_some()
        && !over
        && !next.cancelling.contains(&old)
    {
        next.cancelling.push(old);
    }
    let run = next.run + 1;
    *next = PreloadStatus {
        run,
        load_id: Some(load_id(subject.uid, subject.spec, run)),
        retries: if cause.retry { next.retries.saturating_add(1) } else { 0 },
        evictions: if cause.retry { next.evictions } else { cause.evictions },
        not_before: cause.not_before.map(status::seconds),
        cancelling: std::mem::take(&mut next.cancelling),
        conditions: std::mem::take(&mut next.conditions),
        message: Some(cause.message.clone()),
        ..PreloadStatus::default()
    };
    status::withdraw(next, observed, cause);
}

/// What the spec says, for the sidecar; the error is for the user.
fn wish(subject: &Subject<'_>, cluster: &Cluster) -> Result<Wish, String> {
    let PreloadSpec { path, replicas, engine, timeout, reverify_interval, max_bytes_per_second, .. } =
        subject.spec;
    if max_bytes_per_second.is_some() && *engine == Engine::DistributedLoad {
        let wanted = "engine DistributedLoad cannot keep it; give Native or Auto, or leave it out";
        return Err(format!("spec.maxBytesPerSecond is given; {wanted}"));
    }
    let replicas = match u32::try_from(*replicas) {
        Ok(0) | Err(_) => return Err(format!("spec.replicas is {replicas}; give 1 or more")),
        Ok(replicas) => replicas,
    };
    let timeout = timeout.as_deref().map(|text| parse_duration("timeout", text)).transpose()?;
    let interval = reverify_interval.as_deref();
    let reverify_interval = interval.map(|text| parse_duration("reverifyInterval", text)).transpose()?;
    let labels = [("preload.dev/namespace", subject.namespace), ("preload.dev/name", subject.name)];
    Ok(Wish {
        path: path.clone(),
        replicas,
        engine: *engine,
        timeout,
        reverify_interval,
        max_bytes_per_second: max_bytes_per_second.and_then(|most| u64::try_from(most).ok()),
        min_workers: cluster.workers.open().copied().unwrap_or(0),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    })
}

/// A duration such as 2h, of a second or more; the error names the field and the accepted form.
pub fn parse_duration(field: &str, text: &str) -> Result<Duration, String> {
    let span: Option<jiff::Span> = text.parse().ok();
    span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok())
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| duration.as_secs() > 0)
        .ok_or_else(|| format!("{field} is {text:?}; give a duration such as 2h, 90m or 1h30m"))
}

/// `wish`: what may be started. `id`: of the load to ask for when none was asked for yet.
fn orders(observed: &Observed<'_>, id: &str, wish: Option<Wish>) -> Vec<Order> {
    let status = observed.subject.status;
    let Some(endpoint) = observed.cluster.sidecar.open() else { return Vec::new() };
    let order =
        |load_id: &str, intent| Order { load_id: load_id.to_owned(), endpoint: endpoint.clone(), intent };
    let mut orders: Vec<_> = status.cancelling.iter().map(|old| order(old, Intent::Cancel)).collect();
    if matches!(status.phase, Phase::Failed | Phase::Cancelled) {
        return orders;
    }
    let id = status.load_id.as_deref().unwrap_or(id);
    let submitted =
        status.submission.as_ref().is_some_and(|sent| !sent.accepted && sent.pod_uid == endpoint.pod_uid);
    let intent = match wish {
        Some(wish) if submitted && observed.objects_are_ready() => Intent::Start(Box::new(wish)),
        _ => Intent::Look,
    };
    orders.push(order(id, intent));
    orders
}

/// Cancels what runs, then lets go of the Preload; at the latest when the patience is over.
fn plan_deletion(observed: &Observed<'_>, deleted: Timestamp) -> Plan {
    let subject = &observed.subject;
    if !subject.finalizer {
        return Plan::default();
    }
    let status = subject.status;
    let over = matches!(status.phase, Phase::Loaded | Phase::Failed | Phase::Cancelled);
    let current = status.load_id.as_ref().filter(|_| status.submission.is_some() && !over);
    let open: Vec<_> = (status.cancelling.iter().chain(current))
        .filter(|id| !observed.seen(id).is_some_and(Seen::is_over))
        .collect();
    let limit = deleted.checked_add(observed.deletion_patience).unwrap_or(Timestamp::MAX);
    // Without a pod nothing runs that could be cancelled.
    if open.is_empty() || observed.cluster.pod_uid.is_none() || limit <= observed.now {
        let abandoned = !open.is_empty() && limit <= observed.now;
        let notices =
            if abandoned { vec![status::abandoned(observed.deletion_patience)] } else { Vec::new() };
        return Plan { finalizer: Finalizer::Remove, notices, ..Plan::default() };
    }
    let orders = match observed.cluster.sidecar.open() {
        None => Vec::new(),
        Some(endpoint) => {
            let cancel = |id: &&String| Order {
                load_id: (*id).clone(),
                endpoint: endpoint.clone(),
                intent: Intent::Cancel,
            };
            // Those that are over stay ordered: what was seen of them must not be forgotten before the end.
            let all: Vec<_> = status.cancelling.iter().chain(current).collect();
            all.iter().map(cancel).collect()
        }
    };
    Plan { orders, again_at: Some(limit), ..Plan::default() }
}

#[cfg(test)]
mod tests;
