//! Loads with fixed times, and the real program.

use alluxio_preload_api::v1::{
    Load, LoadSpec, Progress,
    load::{Reason, State, Transition},
};
use prost_types::Timestamp;
use std::{process::Stdio, time::Duration};
use tokio::process::{Child, Command};

/// Nothing here takes long; a test that hangs should say so before CI does.
const LIMIT: Duration = Duration::from_secs(120);

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with its output in pipes; it is killed when dropped.
pub(crate) fn command(address: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_preloadctl"));
    command.args(args).env_clear().env("PRELOAD_ADDRESS", address);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub(crate) async fn preloadctl(address: &str, args: &[&str]) -> Ran {
    ended(command(address, args).spawn().unwrap()).await
}

pub(crate) async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

/// Load `a` as it was queued.
pub(crate) fn queued() -> Load {
    let spec = LoadSpec { path: "/data".into(), replicas: Some(2), ..LoadSpec::default() };
    let load =
        Load { id: "a".into(), uid: "uid-a".into(), spec: Some(spec), create_time: at(0), ..Load::default() };
    then(&load, State::Queued)
}

/// The same load one second and one change of state later.
pub(crate) fn then(before: &Load, to: State) -> Load {
    let mut load = progressed(before, None);
    load.transitions.push(Transition {
        from: before.state,
        to: to.into(),
        time: load.update_time,
        sequence: load.sequence,
        ..Transition::default()
    });
    load.set_state(to);
    load.set_reason(Reason::Unspecified);
    load.message.clear();
    match to {
        State::Listing => load.start_time = load.update_time,
        State::Loading => {
            load.attempt = 1;
            load.progress = Some(Progress {
                files_total: 1_000,
                bytes_total: 4 << 30,
                replicas: 2,
                totals_exact: true,
                ..Progress::default()
            });
        }
        State::Loaded | State::Failed | State::Cancelled | State::Stale => load.end_time = load.update_time,
        _ => {}
    }
    load
}

/// With a reason, in the load and in its last transition.
pub(crate) fn because(mut load: Load, reason: Reason, message: &str) -> Load {
    load.set_reason(reason);
    load.message = message.into();
    let last = load.transitions.last_mut().unwrap();
    last.set_reason(reason);
    last.message = message.into();
    load
}

/// The same load one second later, so many per cent loaded.
pub(crate) fn progressed(before: &Load, percent: Option<u64>) -> Load {
    let mut load = before.clone();
    load.sequence += 1;
    load.update_time = at(i64::try_from(load.sequence).unwrap());
    if let (Some(percent), Some(progress)) = (percent, &mut load.progress) {
        progress.files_cached = progress.files_total * percent / 100;
        progress.bytes_cached = (progress.bytes_total * percent).div_ceil(100);
        progress.bytes_per_second = 100 << 20;
        progress.eta = Some(prost_types::Duration { seconds: 41 - percent as i64 * 41 / 100, nanos: 0 });
    }
    load
}

/// A whole life, message by message: queued, waiting, listing, loading at 0, 25, 27 and 75%, verifying,
/// loaded.
pub(crate) fn life() -> Vec<Load> {
    let queued = queued();
    let waiting = because(then(&queued, State::Waiting), Reason::WorkersMissing, "1 of 2 workers are live");
    let listing = then(&waiting, State::Listing);
    let loading = then(&listing, State::Loading);
    let quarter = progressed(&loading, Some(25));
    let little_more = progressed(&quarter, Some(27));
    let more = progressed(&little_more, Some(75));
    let verifying = then(&progressed(&more, Some(100)), State::Verifying);
    let loaded = then(&verifying, State::Loaded);
    vec![queued, waiting, listing, loading, quarter, little_more, more, verifying, loaded]
}
