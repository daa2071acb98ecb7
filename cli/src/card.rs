//! Everything about one load, for `get`. Pure.

use crate::{
    text::{self, clean},
    words::{self, Paint},
};
use alluxio_preload_api::v1::{
    Load, LoadSpec,
    load_spec::{Engine, LoadMetadata},
};
use std::{fmt::Write, time::Duration, time::SystemTime};

/// Lines of `name value`, ending with the changes of state. What is not known has no line.
pub(crate) fn card(load: &Load, paint: Paint, now: SystemTime) -> String {
    let spec = load.spec.clone().unwrap_or_default();
    let mut rows: Vec<(&str, String)> = vec![
        ("load", clean(&load.id).into_owned()),
        ("state", state(load, &spec, paint)),
        ("path", clean(&spec.path).into_owned()),
        ("replicas", spec.replicas.unwrap_or(1).to_string()),
        ("progress", words::amounts(load)),
        ("engine", engine(load)),
        ("metadata", metadata(&spec)),
        ("workers", minimum(spec.min_workers)),
        ("evict", if spec.allow_evict { "allowed".to_owned() } else { String::new() }),
        ("limits", limits(&spec)),
        ("checks", checks(&spec)),
        ("bandwidth", bandwidth(&spec)),
        ("labels", labels(&spec)),
        ("failures", failures(load)),
        ("created", since(load.create_time, now)),
        ("started", since(load.start_time, now)),
        ("ended", ended(load, now)),
        ("verified", since(load.verify_time, now)),
        ("cluster", clean(&load.cluster).into_owned()),
        ("uid", clean(&load.uid).into_owned()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:width$}  {value}");
    }
    if !load.transitions.is_empty() {
        out.push_str("history\n");
    }
    for transition in &load.transitions {
        let _ = writeln!(out, "  {}", words::transition_line(load, transition, paint));
    }
    out
}

fn state(load: &Load, spec: &LoadSpec, paint: Paint) -> String {
    let state = paint.state(load.state());
    let attempt = match (load.attempt, spec.max_attempts) {
        (0, _) => String::new(),
        (attempt, 0) => format!(" (attempt {attempt})"),
        (attempt, max) => format!(" (attempt {attempt} of {max})"),
    };
    let because = words::because(load.reason(), words::message(load));
    let gap = if because.is_empty() { "" } else { "  " };
    format!("{state}{attempt}{gap}{because}")
}

fn engine(load: &Load) -> String {
    match (load.engine(), load.engine_reason.as_str()) {
        (Engine::Unspecified, _) => String::new(),
        (engine, "") => engine.as_str_name().to_lowercase(),
        (engine, reason) => format!("{}, because {}", engine.as_str_name().to_lowercase(), clean(reason)),
    }
}

fn metadata(spec: &LoadSpec) -> String {
    match spec.load_metadata() {
        LoadMetadata::Unspecified => String::new(),
        metadata => metadata.as_str_name().to_lowercase(),
    }
}

fn minimum(workers: u32) -> String {
    if workers == 0 { String::new() } else { format!("at least {workers}") }
}

fn limits(spec: &LoadSpec) -> String {
    let limit = |name, duration: Option<prost_types::Duration>| {
        let duration = Duration::try_from(duration?).ok()?;
        Some(format!("{name} {}", text::duration(duration)))
    };
    let limits = [limit("gates", spec.wait_timeout), limit("load", spec.timeout)];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn checks(spec: &LoadSpec) -> String {
    let interval = spec.reverify_interval.and_then(|interval| Duration::try_from(interval).ok());
    interval.map(|interval| format!("every {}", text::duration(interval))).unwrap_or_default()
}

fn bandwidth(spec: &LoadSpec) -> String {
    match spec.max_bytes_per_second {
        0 => String::new(),
        most => format!("at most {}/s", text::bytes(most)),
    }
}

fn labels(spec: &LoadSpec) -> String {
    let mut labels: Vec<_> =
        spec.labels.iter().map(|(key, value)| format!("{}={}", clean(key), clean(value))).collect();
    labels.sort();
    labels.join(" ")
}

fn failures(load: &Load) -> String {
    match load.failures {
        0 => String::new(),
        n => format!("{}: preloadctl failures {}", text::files(n), clean(&load.id)),
    }
}

fn since(time: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    match time {
        None => String::new(),
        some => format!("{} ({} ago)", text::time(some), text::age(some, now)),
    }
}

fn ended(load: &Load, now: SystemTime) -> String {
    let ended = since(load.end_time, now);
    match text::between(load.start_time, load.end_time) {
        Some(took) => format!("{ended}, took {}", text::duration(took)),
        None => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::{at, load};
    use alluxio_preload_api::v1::load::{Reason, State, Transition};

    #[test]
    fn a_failed_load_tells_everything_escaped() {
        let mut load = load(State::Failed);
        load.set_reason(Reason::Incomplete);
        load.message = "3 files are missing".into();
        load.failures = 3;
        load.set_engine(Engine::DistributedLoad);
        load.engine_reason = "the launcher has it".into();
        load.end_time = at(30);
        load.verify_time = at(28);
        let spec = load.spec.as_mut().unwrap();
        spec.path = "/データ\u{1b}[2J".into();
        spec.max_attempts = 3;
        spec.set_load_metadata(LoadMetadata::Once);
        spec.wait_timeout = Some(prost_types::Duration { seconds: 600, nanos: 0 });
        spec.reverify_interval = spec.wait_timeout;
        spec.labels.insert("team".into(), "ml\n".into());
        load.transitions = vec![Transition {
            from: State::Verifying.into(),
            to: State::Failed.into(),
            reason: Reason::Incomplete.into(),
            message: "3 files are missing".into(),
            time: at(30),
            sequence: 9,
        }];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(90);
        insta::assert_snapshot!(card(&load, Paint { on: false }, now), @r"
        load      a
        state     FAILED (attempt 1 of 3)  INCOMPLETE: 3 files are missing
        path      /データ\u{1b}[2J
        replicas  2
        progress  41%, 1.25 GiB of 3.00 GiB, 420 of 1,000 files, 120.00 MiB/s, 14s left
        engine    distributed_load, because the launcher has it
        metadata  once
        limits    gates 10m
        checks    every 10m
        labels    team=ml\n
        failures  3 files: preloadctl failures a
        created   1970-01-01T00:00:00Z (2m ago)
        started   1970-01-01T00:00:05Z (85s ago)
        ended     1970-01-01T00:00:30Z (60s ago), took 25s
        verified  1970-01-01T00:00:28Z (62s ago)
        uid       0199-uid
        history
          1970-01-01T00:00:30Z a FAILED  INCOMPLETE: 3 files are missing
        ");
    }
}
