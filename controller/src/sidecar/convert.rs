//! Between the contract with the sidecar and the plain types of the plan.

use alluxio_preload_api::client::Explanation;
use alluxio_preload_api::v1::{self, StartLoadRequest, load_spec};
use jiff::Timestamp;
use tonic::{Code, Status};

use crate::{
    api::{Engine, FailedFile, Failures, Progress},
    preload::{
        load::{Answer, Contact, Load, Seen, State, failed_file},
        plan::Wish,
    },
};

pub(super) fn request(load_id: &str, wish: &Wish) -> StartLoadRequest {
    let engine = match wish.engine {
        Engine::Auto => load_spec::Engine::Unspecified,
        Engine::DistributedLoad => load_spec::Engine::DistributedLoad,
        Engine::Native => load_spec::Engine::Native,
    };
    let spec = v1::LoadSpec {
        path: wish.path.clone(),
        replicas: Some(wish.replicas),
        engine: engine.into(),
        min_workers: wish.min_workers,
        timeout: wish.timeout.and_then(|timeout| timeout.try_into().ok()),
        reverify_interval: wish.reverify_interval.and_then(|interval| interval.try_into().ok()),
        max_bytes_per_second: wish.max_bytes_per_second.unwrap_or(0),
        labels: wish.labels.clone().into_iter().collect(),
        ..v1::LoadSpec::default()
    };
    StartLoadRequest { load_id: load_id.to_owned(), spec: Some(spec) }
}

pub(super) fn load(load: &v1::Load, failures: Option<Failures>) -> Load {
    let state = match load.state() {
        // A state that a later sidecar may have: as good as waiting, until it says more.
        v1::load::State::Unspecified | v1::load::State::Waiting => State::Waiting,
        v1::load::State::Queued => State::Queued,
        v1::load::State::Listing => State::Listing,
        v1::load::State::Loading => State::Loading,
        v1::load::State::Verifying => State::Verifying,
        v1::load::State::Loaded => State::Loaded,
        v1::load::State::Failed => State::Failed,
        v1::load::State::Cancelled => State::Cancelled,
        v1::load::State::Stale => State::Stale,
    };
    let reason = match load.reason() {
        v1::load::Reason::Unspecified => String::new(),
        reason => format!("{reason:?}"),
    };
    let engine = match load.engine() {
        load_spec::Engine::Unspecified => None,
        engine => Some(format!("{engine:?}")),
    };
    Load {
        state,
        reason,
        message: load.message.clone(),
        engine,
        start_time: load.start_time.and_then(timestamp),
        end_time: load.end_time.and_then(timestamp),
        progress: load.progress.as_ref().filter(|progress| progress.totals_exact).map(|p| progress(p, state)),
        failures,
    }
}

fn progress(progress: &v1::Progress, state: State) -> Progress {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let percent = match (progress.bytes_cached, progress.bytes_total) {
        (_, 0) => u128::from(state == State::Loaded) * 100,
        (cached, total) => u128::from(cached.min(total)) * 100 / u128::from(total),
    };
    let rate = Some(progress.bytes_per_second).filter(|rate| *rate > 0);
    let eta = progress.eta.filter(|_| !state.is_over());
    Progress {
        files: whole(progress.files_cached),
        files_total: whole(progress.files_total),
        bytes: whole(progress.bytes_cached),
        bytes_total: whole(progress.bytes_total),
        percent: i32::try_from(percent).unwrap_or(100),
        rate: rate.map(|rate| format!("{}/s", bytesize::ByteSize::b(rate).display().iec())),
        eta: eta.and_then(|eta| jiff::SignedDuration::from_secs(eta.seconds).into()).map(compact),
    }
}

/// Such as 2m30s.
fn compact(duration: jiff::SignedDuration) -> String {
    let printer = jiff::fmt::friendly::SpanPrinter::new().spacing(jiff::fmt::friendly::Spacing::None);
    printer.duration_to_string(&duration)
}

fn timestamp(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

pub(super) fn failures(answer: v1::ListFailuresResponse) -> Failures {
    let file = |failure: v1::Failure| -> FailedFile {
        failed_file(&failure.path, failure.bytes_missing, &failure.reason)
    };
    Failures {
        count: i64::try_from(answer.total).unwrap_or(i64::MAX),
        first: answer.failures.into_iter().map(file).collect(),
    }
}

/// What a refusal means. Everything that is not about the load itself says that the sidecar is of no use now.
pub(super) fn refusal(status: &Status) -> Seen {
    let explanation = Explanation::of(status);
    let answering = |answer| Seen { contact: Contact::Answering, answer };
    let fields =
        explanation.fields.iter().map(|(field, problem)| format!("{field} {problem}")).collect::<Vec<_>>();
    let message = if fields.is_empty() { explanation.message.clone() } else { fields.join("; ") };
    let failing = |reason| Seen {
        contact: Contact::Failing { reason, message: format!("{message}; {}", explanation.next_step()) },
        answer: Answer::None,
    };
    if explanation.unreachable {
        return failing("Unreachable");
    }
    match status.code() {
        Code::NotFound => answering(Answer::NotFound),
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists | Code::Unimplemented => {
            answering(Answer::Refused { message })
        }
        Code::Unauthenticated | Code::PermissionDenied => failing("Unauthenticated"),
        Code::ResourceExhausted => failing("QueueFull"),
        Code::FailedPrecondition => failing("NotServing"),
        _ => failing("SidecarError"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded_down_and_never_above_100() {
        let percent = |cached, total, state| {
            let told = v1::Progress { bytes_cached: cached, bytes_total: total, ..Default::default() };
            progress(&told, state).percent
        };
        assert_eq!(percent(999, 1000, State::Loading), 99);
        assert_eq!(percent(1000, 1000, State::Loading), 100);
        assert_eq!(percent(2000, 1000, State::Loading), 100);
        assert_eq!(percent(0, 0, State::Loading), 0);
        assert_eq!(percent(0, 0, State::Loaded), 100);
        assert_eq!(percent(u64::MAX, u64::MAX, State::Loading), 100);
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(compact(jiff::SignedDuration::from_secs(150)), "2m30s");
        assert_eq!(compact(jiff::SignedDuration::from_secs(0)), "0s");
        assert_eq!(compact(jiff::SignedDuration::from_secs(7260)), "2h1m");
    }

    #[test]
    fn only_what_concerns_the_load_is_final() {
        let of = |code| refusal(&Status::new(code, "words")).answer;
        assert_eq!(of(Code::NotFound), Answer::NotFound);
        assert!(matches!(of(Code::InvalidArgument), Answer::Refused { .. }));
        for code in [Code::Unavailable, Code::Unauthenticated, Code::ResourceExhausted, Code::Internal] {
            assert_eq!(of(code), Answer::None, "{code:?}");
        }
    }
}
