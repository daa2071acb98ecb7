//! What every load must be true to, however it went.

use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::{State, Transition};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, SystemTime};

/// The states of a load, QUEUED first.
pub(crate) fn states(load: &Load) -> Vec<State> {
    let mut states = vec![State::Queued];
    states.extend(load.transitions.iter().map(Transition::to));
    states
}

/// Fails unless the transitions of a finished load lead from QUEUED to its state without a gap, at growing
/// sequence numbers and at times that do not go back.
pub(crate) fn assert_complete(load: &Load) -> Result<()> {
    ensure!(is_terminal(load.state(), false), "{:?} is not the end", load.state());
    let (mut state, mut sequence) = (State::Queued, 1);
    let mut time = at(load.create_time)?;
    for transition in &load.transitions {
        ensure!(transition.from() == state, "a gap after {state:?}: {transition:?}");
        ensure!(transition.sequence > sequence, "sequence {sequence} does not grow: {transition:?}");
        ensure!(at(transition.time)? >= time, "time goes back: {transition:?}");
        (state, sequence, time) = (transition.to(), transition.sequence, at(transition.time)?);
    }
    ensure!(state == load.state(), "the last transition leads to {state:?}, not to {:?}", load.state());
    ensure!(sequence <= load.sequence, "sequence {} is older than the last transition", load.sequence);
    ensure!(load.end_time.is_some() && load.error.is_some() == (load.state() != State::Loaded));
    Ok(())
}

/// When a load left QUEUED and when it ended.
pub(crate) fn run_of(load: &Load) -> Result<(SystemTime, SystemTime)> {
    let first = load.transitions.first().context("no transition")?;
    let last = load.transitions.last().context("no transition")?;
    Ok((at(first.time)?, at(last.time)?))
}

/// How long a load was in `state`, in all.
pub(crate) fn time_in(load: &Load, state: State) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pair in load.transitions.windows(2).filter(|pair| pair[0].to() == state) {
        total += at(pair[1].time)?.duration_since(at(pair[0].time)?)?;
    }
    Ok(total)
}

pub(crate) fn at(time: Option<prost_types::Timestamp>) -> Result<SystemTime> {
    Ok(SystemTime::try_from(time.context("a time is missing")?)?)
}
