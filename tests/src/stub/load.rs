//! One load: how it goes through its script, and how a watch tells of it.

use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::{Load, Progress};
use futures_util::{Stream, stream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tonic::Status;

/// As the contract has it.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two messages of progress, as of a real sidecar.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
const FILES: u64 = 100;
const BYTES: u64 = 100 << 20;

/// The present state, then each change, until the load is over.
pub(super) fn told(
    changes: watch::Receiver<Load>,
    follow: bool,
) -> impl Stream<Item = Result<Load, Status>> + Send {
    stream::unfold(Some((changes, true)), move |state| async move {
        let (mut changes, first) = state?;
        if !first && let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, changes.changed()).await {
            return Some((Err(Status::not_found("the load was deleted")), None));
        }
        let load = changes.borrow_and_update().clone();
        let next = (!is_terminal(load.state(), follow)).then_some((changes, false));
        Some((Ok(load), next))
    })
}

/// Leads a load through its script, unless it is cancelled before.
pub(super) async fn play(load: Arc<watch::Sender<Load>>, script: Arc<[(State, Duration)]>) {
    for (state, lasts) in script.iter().copied() {
        if !enter(&load, state) {
            return;
        }
        let begun = Instant::now();
        while let Some(left) = lasts.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(PROGRESS_EVERY)).await;
            if state == State::Loading && left > PROGRESS_EVERY {
                progress(&load, begun.elapsed().div_duration_f64(lasts));
            }
        }
    }
}

/// False: the load is over already.
pub(super) fn enter(load: &watch::Sender<Load>, state: State) -> bool {
    let now = || Some(SystemTime::now().into());
    let cached = |files, bytes| {
        Some(Progress {
            files_total: FILES,
            files_cached: files,
            bytes_total: BYTES,
            bytes_cached: bytes,
            replicas: 1,
            totals_exact: true,
            cached_exact: true,
            ..Progress::default()
        })
    };
    let mut open = true;
    load.send_if_modified(|load| {
        open = !is_terminal(load.state(), false);
        let changes = open && load.state() != state;
        if changes {
            load.set_state(state);
            load.sequence += 1;
            load.update_time = now();
            match state {
                State::Listing => load.start_time = now(),
                State::Loading => load.progress = cached(0, 0),
                State::Verifying => load.progress = cached(FILES, BYTES),
                _ => {}
            }
            if is_terminal(state, false) {
                load.end_time = now();
            }
        }
        changes
    });
    open
}

fn progress(load: &watch::Sender<Load>, part: f64) {
    load.send_if_modified(|load| {
        let loading = load.state() == State::Loading;
        if let Some(progress) = load.progress.as_mut().filter(|_| loading) {
            progress.bytes_cached = (BYTES as f64 * part.min(1.0)) as u64;
            progress.files_cached = (FILES as f64 * part.min(1.0)) as u64;
            load.sequence += 1;
        }
        loading
    });
}
