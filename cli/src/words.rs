//! A load in words: one line for a change of state, one for progress. Pure.

use crate::text;
use alluxio_preload_api::v1::{
    Load, Progress,
    load::{Reason, State, Transition},
    load_spec::Engine,
};
use console::Style;
use std::time::Duration;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    pub(crate) on: bool,
}

impl Paint {
    pub(crate) fn state(self, state: State) -> String {
        let style = match state {
            State::Loaded => Style::new().green(),
            State::Failed => Style::new().red(),
            State::Cancelled | State::Stale | State::Waiting => Style::new().yellow(),
            State::Listing | State::Loading | State::Verifying => Style::new().cyan(),
            State::Unspecified | State::Queued => Style::new(),
        };
        style.force_styling(self.on).apply_to(state.as_str_name()).to_string()
    }
}

/// `TIME ID STATE  what there is to say about it`.
pub(crate) fn state_line(load: &Load, paint: Paint) -> String {
    let time = load.transitions.last().and_then(|t| t.time).or(load.update_time);
    line(time, load, load.state(), &headline(load), paint)
}

/// The same for the outcome of a check, at the time of the check.
pub(crate) fn verdict_line(load: &Load, paint: Paint) -> String {
    match load.state() {
        State::Loaded => {
            let what = join([loaded(load), because(load.reason(), message(load))]);
            line(load.verify_time, load, State::Loaded, &what, paint)
        }
        _ => state_line(load, paint),
    }
}

/// The command that asks for the same copies once more; an id, limits and labels are the caller's.
pub(crate) fn same_start(load: &Load) -> String {
    let Some(spec) = &load.spec else { return "preloadctl start".to_owned() };
    let mut command = format!("preloadctl start {} --replicas {}", text::clean(&spec.path), spec.replicas());
    match spec.engine() {
        Engine::Unspecified => {}
        Engine::DistributedLoad => command.push_str(" --engine distributed-load"),
        Engine::Native => command.push_str(" --engine native"),
    }
    command
}

/// The same for a change of state that is past already.
pub(crate) fn transition_line(load: &Load, transition: &Transition, paint: Paint) -> String {
    let what = because(transition.reason(), &transition.message);
    line(transition.time, load, transition.to(), &what, paint)
}

pub(crate) fn progress_line(load: &Load, paint: Paint) -> String {
    line(load.update_time, load, load.state(), &working(load), paint)
}

fn line(time: Option<prost_types::Timestamp>, load: &Load, state: State, what: &str, paint: Paint) -> String {
    let time = text::time(time);
    let line = format!("{time} {} {}  {what}", text::clean(&load.id), paint.state(state));
    line.trim_end().to_owned()
}

/// What matters in this state.
pub(crate) fn headline(load: &Load) -> String {
    let because = because(load.reason(), message(load));
    match load.state() {
        State::Unspecified | State::Queued | State::Waiting | State::Cancelled => because,
        State::Listing => join([because, found(load)]),
        State::Loading | State::Verifying => join([because, working(load)]),
        State::Failed | State::Stale => join([because, failures(load)]),
        State::Loaded => {
            let took = text::between(load.start_time, load.end_time);
            let took = took.map(|t| format!("took {}", text::duration(t))).unwrap_or_default();
            join([loaded(load), took, because])
        }
    }
}

pub(crate) fn message(load: &Load) -> &str {
    match &load.error {
        Some(error) if load.message.is_empty() => &error.message,
        _ => &load.message,
    }
}

/// `REASON: message`
pub(crate) fn because(reason: Reason, message: &str) -> String {
    let message = text::clean(message);
    match (reason, message.is_empty()) {
        (Reason::Unspecified, _) => message.into_owned(),
        (reason, true) => reason.as_str_name().to_owned(),
        (reason, false) => format!("{}: {message}", reason.as_str_name()),
    }
}

fn found(load: &Load) -> String {
    match load.progress {
        Some(Progress { files_total: total, .. }) if total > 0 => format!("{} found", text::files(total)),
        _ => String::new(),
    }
}

fn loaded(load: &Load) -> String {
    let Some(progress) = load.progress else { return String::new() };
    let size = format!("{} in {}", text::bytes(progress.bytes_total), text::files(progress.files_total));
    if progress.replicas > 1 { format!("{size} at {} replicas", progress.replicas) } else { size }
}

fn failures(load: &Load) -> String {
    match load.failures {
        0 => String::new(),
        n => format!("{} not loaded: preloadctl failures {}", text::files(n), text::clean(&load.id)),
    }
}

/// Why there is no file to name.
pub(crate) fn no_failures(state: State) -> &'static str {
    match state {
        State::Loaded => "none: every file is loaded",
        State::Failed | State::Cancelled | State::Stale => {
            "none are known: the load ended before it looked for them; preloadctl get says why"
        }
        State::Unspecified
        | State::Queued
        | State::Waiting
        | State::Listing
        | State::Loading
        | State::Verifying => "none are known yet: the load looks for them when it has loaded (VERIFYING)",
    }
}

/// `42%, 1.20 GiB of 2.90 GiB, 420 of 1,000 files, 3 failed, 120.00 MiB/s, 14s left`
pub(crate) fn amounts(load: &Load) -> String {
    let Some(progress) = load.progress else { return String::new() };
    let about = if progress.totals_exact { "" } else { "at least " };
    let mut parts: Vec<String> = percent(load).map(|p| format!("{p}%")).into_iter().collect();
    parts.push(format!(
        "{} of {about}{}",
        text::bytes(progress.bytes_cached),
        text::bytes(progress.bytes_total)
    ));
    parts.push(format!(
        "{} of {about}{}",
        text::count(progress.files_cached),
        text::files(progress.files_total)
    ));
    if progress.files_failed > 0 {
        parts.push(format!("{} failed", text::count(progress.files_failed)));
    }
    if progress.bytes_per_second > 0 {
        parts.push(format!("{}/s", text::bytes(progress.bytes_per_second)));
    }
    // Less than a second says nothing: the command itself takes longer to notice its end.
    let eta = progress.eta.and_then(|eta| Duration::try_from(eta).ok());
    if let Some(eta) = eta.filter(|eta| eta.as_secs() > 0) {
        parts.push(format!("{} left", text::duration(eta)));
    }
    parts.join(", ")
}

/// The same while it is under way, where the first attempt goes without saying.
pub(crate) fn working(load: &Load) -> String {
    match (amounts(load), load.attempt) {
        (amounts, 0 | 1) => amounts,
        (amounts, attempt) => format!("{amounts}, attempt {attempt}"),
    }
}

/// Whole per cent, rounded down: 100 means everything. `None` while nobody knows.
pub(crate) fn percent(load: &Load) -> Option<u64> {
    match (load.state(), load.progress) {
        (State::Loaded, _) => Some(100),
        (_, Some(progress)) if progress.bytes_total > 0 => {
            let percent = u128::from(progress.bytes_cached) * 100 / u128::from(progress.bytes_total);
            Some(u64::try_from(percent).unwrap_or(100).min(100))
        }
        _ => None,
    }
}

fn join<const N: usize>(parts: [String; N]) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alluxio_preload_api::v1::LoadSpec;
    use prost_types::Timestamp;

    pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 250_000_000 })
    }

    #[test]
    fn the_same_once_more_asks_for_as_many_copies() {
        let mut load = load(State::Stale);
        assert_eq!(same_start(&load), "preloadctl start /data --replicas 2");
        load.spec.as_mut().unwrap().set_engine(Engine::Native);
        assert_eq!(same_start(&load), "preloadctl start /data --replicas 2 --engine native");
    }

    pub(crate) fn load(state: State) -> Load {
        Load {
            id: "a".into(),
            uid: "0199-uid".into(),
            spec: Some(LoadSpec { path: "/data".into(), replicas: Some(2), ..LoadSpec::default() }),
            state: state.into(),
            progress: Some(Progress {
                files_total: 1_000,
                files_cached: 420,
                bytes_total: 3 << 30,
                bytes_cached: 5 << 28,
                replicas: 2,
                bytes_per_second: 120 << 20,
                eta: Some(prost_types::Duration { seconds: 14, nanos: 0 }),
                totals_exact: true,
                ..Progress::default()
            }),
            attempt: 1,
            sequence: 9,
            create_time: at(0),
            start_time: at(5),
            update_time: at(30),
            ..Load::default()
        }
    }

    #[test]
    fn each_state_says_what_matters() {
        let mut load = load(State::Waiting);
        load.set_reason(Reason::WorkersMissing);
        load.message = "1 of 2 workers\u{1b}[2J".into();
        assert_eq!(headline(&load), "WORKERS_MISSING: 1 of 2 workers\\u{1b}[2J");

        load.set_reason(Reason::Unspecified);
        load.message.clear();
        load.set_state(State::Loading);
        assert_eq!(headline(&load), "41%, 1.25 GiB of 3.00 GiB, 420 of 1,000 files, 120.00 MiB/s, 14s left");

        if let Some(progress) = &mut load.progress {
            progress.eta = Some(prost_types::Duration { seconds: 0, nanos: 900_000_000 });
        }
        assert!(headline(&load).ends_with("120.00 MiB/s"));
        if let Some(progress) = &mut load.progress {
            progress.eta = Some(prost_types::Duration { seconds: 14, nanos: 0 });
        }

        load.attempt = 2;
        assert!(headline(&load).ends_with("14s left, attempt 2"));

        load.set_state(State::Loaded);
        load.end_time = at(30);
        assert_eq!(headline(&load), "3.00 GiB in 1,000 files at 2 replicas; took 25s");

        load.set_state(State::Failed);
        load.set_reason(Reason::Incomplete);
        load.failures = 3;
        load.error = Some(tonic_types::Status { message: "3 files gone".into(), ..Default::default() });
        assert_eq!(headline(&load), "INCOMPLETE: 3 files gone; 3 files not loaded: preloadctl failures a");
    }

    #[test]
    fn percent_never_promises_what_is_not_there() {
        let mut load = load(State::Loading);
        let progress = load.progress.as_mut().unwrap();
        progress.bytes_total = u64::MAX;
        progress.bytes_cached = u64::MAX - 1;
        assert_eq!(percent(&load), Some(99));
        load.progress.as_mut().unwrap().bytes_total = 0;
        assert_eq!(percent(&load), None);
        load.set_state(State::Loaded);
        assert_eq!(percent(&load), Some(100));
        load.set_state(State::Failed);
        load.progress = None;
        assert_eq!(percent(&load), None);
    }

    #[test]
    fn lines_carry_the_time_of_the_change_and_colour_only_on_demand() {
        let mut load = load(State::Queued);
        load.transitions =
            vec![Transition { to: State::Queued.into(), time: at(7), ..Transition::default() }];
        assert_eq!(state_line(&load, Paint { on: false }), "1970-01-01T00:00:07Z a QUEUED");
        load.set_state(State::Failed);
        assert!(state_line(&load, Paint { on: true }).contains("\u{1b}[31mFAILED\u{1b}[0m"));
    }
}
