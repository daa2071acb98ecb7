//! Between the contract and the domain: the only place, with its siblings, that names both.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use alluxio_preload_api::v1;
use jiff::Timestamp;
use v1::{load, load_spec};

use crate::{
    human::quoted,
    job::{
        AlluxioPath, EngineChoice, EngineKind, Failure, Job, LoadId, LoadMetadata, Progress, Reason, Spec,
        SpecError, State, Transition,
    },
    store::ListQuery,
};

use super::page::Page;

const MAX_LABELS: usize = 32;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 256;
/// More replicas than any cluster has workers; keeps sums of bytes far from overflow.
const MAX_REPLICAS: u32 = 10_000;
const MAX_ATTEMPTS: u32 = 100;
/// Longer time-outs are mistakes of unit.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);
/// A check is a listing of the whole path.
const MIN_REVERIFY_INTERVAL: Duration = Duration::from_secs(1);

fn error(field: &'static str, problem: impl Into<String>) -> SpecError {
    SpecError { field, problem: problem.into() }
}

/// `None` for the empty id, which asks for one.
pub(super) fn optional_id(text: String) -> Result<Option<LoadId>, SpecError> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

pub(super) fn id(text: String) -> Result<LoadId, SpecError> {
    LoadId::try_from(text).map_err(|problem| error("load_id", problem))
}

/// Checks a wish and fills in defaults.
pub(super) fn spec(spec: Option<v1::LoadSpec>) -> Result<Spec, SpecError> {
    let spec = spec.ok_or_else(|| error("spec", "is missing; give at least spec.path"))?;
    let path = AlluxioPath::try_from(spec.path).map_err(|problem| error("spec.path", problem))?;
    let defaults = Spec::new(path);
    let replicas = match spec.replicas {
        None => defaults.replicas,
        Some(n) => at_most("spec.replicas", n, MAX_REPLICAS)?
            .ok_or_else(|| error("spec.replicas", "is 0; give 1 or more, or leave it unset for 1"))?,
    };
    let engine = engine(spec.engine)?;
    Ok(Spec {
        replicas,
        engine,
        load_metadata: load_metadata(spec.load_metadata)?,
        min_workers: spec.min_workers,
        allow_evict: spec.allow_evict,
        wait_timeout: duration("spec.wait_timeout", spec.wait_timeout)?.unwrap_or(defaults.wait_timeout),
        timeout: timeout(spec.timeout)?,
        max_attempts: at_most("spec.max_attempts", spec.max_attempts, MAX_ATTEMPTS)?
            .unwrap_or(defaults.max_attempts),
        labels: labels("spec.labels", spec.labels)?,
        reverify_interval: reverify_interval(spec.reverify_interval)?,
        max_bytes_per_second: max_bytes_per_second(spec.max_bytes_per_second, engine)?,
        ..defaults
    })
}

/// `None` for 0.
fn at_most(field: &'static str, n: u32, most: u32) -> Result<Option<NonZeroU32>, SpecError> {
    if n > most {
        Err(error(field, format!("is {n}; at most {most} is accepted")))
    } else {
        Ok(NonZeroU32::new(n))
    }
}

fn engine(number: i32) -> Result<EngineChoice, SpecError> {
    match load_spec::Engine::try_from(number) {
        Ok(load_spec::Engine::Unspecified) => Ok(EngineChoice::Auto),
        Ok(load_spec::Engine::DistributedLoad) => Ok(EngineChoice::DistributedLoad),
        Ok(load_spec::Engine::Native) => Ok(EngineChoice::Native),
        Err(_) => Err(error(
            "spec.engine",
            format!("{number} is unknown; give DISTRIBUTED_LOAD, NATIVE or nothing"),
        )),
    }
}

fn load_metadata(number: i32) -> Result<LoadMetadata, SpecError> {
    match load_spec::LoadMetadata::try_from(number) {
        Ok(load_spec::LoadMetadata::Unspecified | load_spec::LoadMetadata::Once) => Ok(LoadMetadata::Once),
        Ok(load_spec::LoadMetadata::Never) => Ok(LoadMetadata::Never),
        Ok(load_spec::LoadMetadata::Always) => Ok(LoadMetadata::Always),
        Err(_) => {
            Err(error("spec.load_metadata", format!("{number} is unknown; give ONCE, NEVER or ALWAYS")))
        }
    }
}

fn duration(
    field: &'static str,
    given: Option<prost_types::Duration>,
) -> Result<Option<Duration>, SpecError> {
    let Some(given) = given else { return Ok(None) };
    let accepted = "give a duration from 0s to 366 days, such as 600s";
    let duration = Duration::try_from(given).map_err(|_| error(field, format!("is negative; {accepted}")))?;
    if duration > MAX_DURATION {
        return Err(error(field, format!("is too long; {accepted}")));
    }
    Ok(Some(duration))
}

fn timeout(given: Option<prost_types::Duration>) -> Result<Option<Duration>, SpecError> {
    match duration("spec.timeout", given)? {
        Some(Duration::ZERO) => Err(error("spec.timeout", "is 0s; leave it unset for no limit")),
        timeout => Ok(timeout),
    }
}

fn max_bytes_per_second(given: u64, engine: EngineChoice) -> Result<Option<NonZeroU64>, SpecError> {
    if given > 0 && engine == EngineChoice::DistributedLoad {
        let problem = "cannot be kept by DISTRIBUTED_LOAD; give engine NATIVE or none, or leave it out";
        return Err(error("spec.max_bytes_per_second", problem.to_owned()));
    }
    Ok(NonZeroU64::new(given))
}

fn reverify_interval(given: Option<prost_types::Duration>) -> Result<Option<Duration>, SpecError> {
    const FIELD: &str = "spec.reverify_interval";
    match duration(FIELD, given)? {
        Some(short) if short < MIN_REVERIFY_INTERVAL => Err(error(
            FIELD,
            "is shorter than 1s; give 1s or more, such as 600s, or leave it unset for never",
        )),
        interval => Ok(interval),
    }
}

fn labels(
    field: &'static str,
    labels: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, SpecError> {
    let labels: BTreeMap<_, _> = labels.into_iter().collect();
    if labels.len() > MAX_LABELS {
        return Err(error(field, format!("has {} entries; at most {MAX_LABELS} are accepted", labels.len())));
    }
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_LABEL_KEY || value.len() > MAX_LABEL_VALUE {
            let accepted = format!(
                "keys of 1 to {MAX_LABEL_KEY} bytes and values of at most {MAX_LABEL_VALUE} are accepted"
            );
            let key = quoted(key);
            return Err(error(field, format!("has an entry {key} that is too long or empty; {accepted}")));
        }
    }
    Ok(labels)
}

pub(super) fn list_query(
    filter: Option<v1::list_loads_request::Filter>,
    page: &Page,
) -> Result<ListQuery, SpecError> {
    let filter = filter.unwrap_or_default();
    let states = filter.states.iter().map(|number| state(*number)).collect::<Result<_, _>>()?;
    let prefix = Some(filter.path_prefix).filter(|prefix| !prefix.is_empty()).map(AlluxioPath::try_from);
    let path_prefix = prefix.transpose().map_err(|problem| error("filter.path_prefix", problem))?;
    let labels = labels("filter.labels", filter.labels)?;
    Ok(ListQuery { states, path_prefix, labels, before: page.after, limit: page.size + 1 })
}

fn state(number: i32) -> Result<State, SpecError> {
    let unknown =
        || error("filter.states", format!("{number} is not a state; give QUEUED, LOADED and so on"));
    let wire = load::State::try_from(number).map_err(|_| unknown())?;
    State::ALL.into_iter().find(|state| state_to_wire(*state) == wire).ok_or_else(unknown)
}

/// The load as clients see it.
pub(super) fn load(job: &Job) -> v1::Load {
    v1::Load {
        id: job.id.to_string(),
        uid: job.uid.to_string(),
        spec: Some(spec_to_wire(&job.spec)),
        state: state_to_wire(job.state).into(),
        reason: reason_to_wire(job.reason).into(),
        message: job.message.clone(),
        progress: Some(progress(&job.progress)),
        error: super::status::of_job(job),
        attempt: job.attempt,
        engine: engine_to_wire(job.engine).into(),
        engine_reason: job.engine_reason.clone(),
        sequence: job.sequence,
        transitions: job.transitions.iter().map(transition).collect(),
        cluster: job.cluster.clone(),
        create_time: Some(timestamp(job.created)),
        start_time: job.started.map(timestamp),
        end_time: job.ended.map(timestamp),
        update_time: Some(timestamp(job.updated)),
        failures: job.failures.count,
        verify_time: job.verified.map(timestamp),
    }
}

pub(super) fn failure(failure: Failure) -> v1::Failure {
    let Failure { path, length, bytes_missing, replicas_seen, reason } = failure;
    v1::Failure { path, length, bytes_missing, replicas_seen, reason }
}

fn spec_to_wire(spec: &Spec) -> v1::LoadSpec {
    v1::LoadSpec {
        path: spec.path.to_string(),
        replicas: Some(spec.replicas.get()),
        engine: match spec.engine {
            EngineChoice::Auto => load_spec::Engine::Unspecified,
            EngineChoice::DistributedLoad => load_spec::Engine::DistributedLoad,
            EngineChoice::Native => load_spec::Engine::Native,
        }
        .into(),
        load_metadata: match spec.load_metadata {
            LoadMetadata::Once => load_spec::LoadMetadata::Once,
            LoadMetadata::Never => load_spec::LoadMetadata::Never,
            LoadMetadata::Always => load_spec::LoadMetadata::Always,
        }
        .into(),
        min_workers: spec.min_workers,
        allow_evict: spec.allow_evict,
        wait_timeout: duration_to_wire(Some(spec.wait_timeout)),
        timeout: duration_to_wire(spec.timeout),
        max_attempts: spec.max_attempts.get(),
        labels: spec.labels.clone().into_iter().collect(),
        reverify_interval: duration_to_wire(spec.reverify_interval),
        max_bytes_per_second: spec.max_bytes_per_second.map_or(0, NonZeroU64::get),
    }
}

fn progress(progress: &Progress) -> v1::Progress {
    let count = progress.count();
    v1::Progress {
        files_total: count.files_total,
        files_cached: count.files_cached,
        files_failed: count.files_failed,
        bytes_total: count.bytes_total,
        bytes_cached: count.bytes_cached,
        bytes_failed: count.bytes_failed,
        replicas: progress.replicas,
        bytes_per_second: count.bytes_per_second,
        eta: duration_to_wire(count.eta),
        totals_exact: count.totals_exact,
        cached_exact: count.cached_exact,
    }
}

fn transition(transition: &Transition) -> load::Transition {
    load::Transition {
        from: state_to_wire(transition.from).into(),
        to: state_to_wire(transition.to).into(),
        reason: reason_to_wire(transition.reason).into(),
        message: transition.message.clone(),
        time: Some(timestamp(transition.time)),
        sequence: transition.sequence,
    }
}

fn engine_to_wire(engine: Option<EngineKind>) -> load_spec::Engine {
    match engine {
        None => load_spec::Engine::Unspecified,
        Some(EngineKind::DistributedLoad) => load_spec::Engine::DistributedLoad,
        Some(EngineKind::Native) => load_spec::Engine::Native,
    }
}

fn state_to_wire(state: State) -> load::State {
    match state {
        State::Queued => load::State::Queued,
        State::Waiting => load::State::Waiting,
        State::Listing => load::State::Listing,
        State::Loading => load::State::Loading,
        State::Verifying => load::State::Verifying,
        State::Loaded => load::State::Loaded,
        State::Failed => load::State::Failed,
        State::Cancelled => load::State::Cancelled,
        State::Stale => load::State::Stale,
    }
}

pub(super) fn reason_to_wire(reason: Option<Reason>) -> load::Reason {
    let Some(reason) = reason else { return load::Reason::Unspecified };
    match reason {
        Reason::AlluxioUnreachable => load::Reason::AlluxioUnreachable,
        Reason::WorkersMissing => load::Reason::WorkersMissing,
        Reason::NoJobWorker => load::Reason::NoJobWorker,
        Reason::NotEnoughRoom => load::Reason::NotEnoughRoom,
        Reason::CommandMissing => load::Reason::CommandMissing,
        Reason::PathNotFound => load::Reason::PathNotFound,
        Reason::Incomplete => load::Reason::Incomplete,
        Reason::TimedOut => load::Reason::TimedOut,
        Reason::GateTimedOut => load::Reason::GateTimedOut,
        Reason::CancelledByUser => load::Reason::CancelledByUser,
        Reason::ClusterChanged => load::Reason::ClusterChanged,
        Reason::MountsChanged => load::Reason::MountsChanged,
        Reason::Evicted => load::Reason::Evicted,
        Reason::Empty => load::Reason::Empty,
        Reason::Internal => load::Reason::Internal,
    }
}

fn duration_to_wire(duration: Option<Duration>) -> Option<prost_types::Duration> {
    // Our own are bounded; what does not fit is not shown.
    duration.and_then(|duration| prost_types::Duration::try_from(duration).ok())
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(wish: v1::LoadSpec) -> &'static str {
        spec(Some(wish)).unwrap_err().field
    }

    fn wish() -> v1::LoadSpec {
        v1::LoadSpec { path: "/a".into(), ..v1::LoadSpec::default() }
    }

    #[test]
    fn defaults_are_filled_in_and_come_back() {
        let spec = spec(Some(wish())).unwrap();
        assert_eq!((spec.replicas.get(), spec.max_attempts.get()), (1, 3));
        assert_eq!((spec.wait_timeout, spec.timeout), (Duration::from_secs(600), None));
        assert_eq!(super::spec(Some(spec_to_wire(&spec))).unwrap(), spec);
    }

    #[test]
    fn bad_fields_are_named() {
        let minus = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(field(v1::LoadSpec { path: "a".into(), ..wish() }), "spec.path");
        assert_eq!(field(v1::LoadSpec { replicas: Some(0), ..wish() }), "spec.replicas");
        assert_eq!(field(v1::LoadSpec { replicas: Some(u32::MAX), ..wish() }), "spec.replicas");
        assert_eq!(field(v1::LoadSpec { engine: 99, ..wish() }), "spec.engine");
        assert_eq!(field(v1::LoadSpec { engine: 3, ..wish() }), "spec.engine");
        assert_eq!(field(v1::LoadSpec { load_metadata: 99, ..wish() }), "spec.load_metadata");
        assert_eq!(field(v1::LoadSpec { timeout: minus, ..wish() }), "spec.timeout");
        let zero = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        assert_eq!(field(v1::LoadSpec { timeout: zero, ..wish() }), "spec.timeout");
        assert_eq!(field(v1::LoadSpec { wait_timeout: minus, ..wish() }), "spec.wait_timeout");
        let short = Some(prost_types::Duration { seconds: 0, nanos: 999_999_999 });
        let limited = v1::LoadSpec { engine: 1, max_bytes_per_second: 7, ..wish() };
        assert_eq!(field(limited), "spec.max_bytes_per_second");
        for reverify_interval in [minus, zero, short] {
            assert_eq!(field(v1::LoadSpec { reverify_interval, ..wish() }), "spec.reverify_interval");
        }
        assert_eq!(field(v1::LoadSpec { max_attempts: 101, ..wish() }), "spec.max_attempts");
        let labels = [("k".repeat(64), String::new())].into();
        assert_eq!(field(v1::LoadSpec { labels, ..wish() }), "spec.labels");
        assert!(spec(None).unwrap_err().field == "spec");
    }

    proptest! {
        #[test]
        fn any_wish_is_taken_or_refused(
            path in "/?[a-z/.]{0,8}", replicas in any::<Option<u32>>(), engine in any::<i32>(),
            seconds in any::<i64>(), nanos in any::<i32>(), max_attempts in any::<u32>(), again in any::<bool>(),
        ) {
            let timeout = Some(prost_types::Duration { seconds, nanos });
            let reverify_interval = timeout.filter(|_| again);
            let wish = v1::LoadSpec {
                path, replicas, engine, timeout, max_attempts, reverify_interval, ..wish()
            };
            if let Ok(taken) = spec(Some(wish)) {
                prop_assert_eq!(spec(Some(spec_to_wire(&taken))).unwrap(), taken);
            }
        }
    }
}
