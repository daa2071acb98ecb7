//! A watch as plain lines. Pure: time comes in, lines go out.
//!
//! Every change of state becomes one line, also those that happened between two messages.

use crate::words::{self, Paint};
use alluxio_preload_api::v1::{
    Load,
    load::{Reason, State},
};
use std::time::{Duration, Instant};

/// Progress is told when it grew by so many per cent, or after so long.
const STEP: u64 = 10;
const PAUSE: Duration = Duration::from_secs(10);

/// The changes of state of one load, each told once.
#[derive(Debug)]
pub(super) struct Changes {
    paint: Paint,
    told: Option<(u64, State, Reason)>,
}

impl Changes {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, told: None }
    }

    /// Lines for what is new since the last call: the present state at first, then each change.
    pub(super) fn lines(&mut self, load: &Load) -> Vec<String> {
        let now = (load.sequence, load.state(), load.reason());
        let Some((sequence, state, reason)) = self.told.replace(now) else {
            return vec![words::state_line(load, self.paint)];
        };
        let new: Vec<_> = load.transitions.iter().filter(|t| t.sequence > sequence).collect();
        // Of the last change more is known than the transition says.
        let past = match new.last() {
            Some(last) if last.to() == load.state() => &new[..new.len() - 1],
            _ => &new[..],
        };
        let mut lines: Vec<_> = past.iter().map(|t| words::transition_line(load, t, self.paint)).collect();
        if past.len() < new.len() || load.state() != state || load.reason() != reason {
            lines.push(words::state_line(load, self.paint));
        }
        lines
    }
}

#[derive(Debug)]
pub(crate) struct Lines {
    changes: Changes,
    paint: Paint,
    /// When progress was told last, and what.
    progress: Option<(Instant, Option<u64>, String)>,
}

impl Lines {
    pub(super) fn new(paint: Paint) -> Self {
        Self { changes: Changes::new(paint), paint, progress: None }
    }

    pub(super) fn load(&mut self, load: &Load, now: Instant) -> Vec<String> {
        let lines = self.changes.lines(load);
        let percent = words::percent(load);
        let amounts = words::working(load);
        if !lines.is_empty() {
            self.progress = Some((now, percent, amounts));
            return lines;
        }
        let moves = matches!(load.state(), State::Listing | State::Loading | State::Verifying);
        let due = self.progress.as_ref().is_none_or(|(at, before, text)| {
            let grown = percent.unwrap_or(0).saturating_sub(before.unwrap_or(0)) >= STEP;
            *text != amounts && (grown || now.duration_since(*at) >= PAUSE)
        });
        if !moves || !due {
            return Vec::new();
        }
        self.progress = Some((now, percent, amounts));
        vec![words::progress_line(load, self.paint)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::{at, load};
    use alluxio_preload_api::v1::load::Transition;

    const PLAIN: Paint = Paint { on: false };

    fn transition(sequence: u64, from: State, to: State) -> Transition {
        Transition { from: from.into(), to: to.into(), time: at(0), sequence, ..Transition::default() }
    }

    fn cached(sequence: u64, percent: u64) -> Load {
        let mut load = load(State::Loading);
        load.sequence = sequence;
        let progress = load.progress.as_mut().unwrap();
        progress.bytes_cached = (progress.bytes_total * percent).div_ceil(100);
        load
    }

    #[test]
    fn states_between_two_messages_are_told_in_order_and_once() {
        let mut changes = Changes::new(PLAIN);
        let mut load = load(State::Queued);
        load.progress = None;
        load.sequence = 1;
        load.transitions = vec![transition(1, State::Unspecified, State::Queued)];
        assert_eq!(changes.lines(&load).len(), 1);
        assert_eq!(changes.lines(&load), [""; 0], "a heartbeat");

        load.sequence = 7;
        load.transitions.push(transition(2, State::Queued, State::Waiting));
        load.transitions.push(transition(3, State::Waiting, State::Listing));
        load.transitions.push(transition(5, State::Listing, State::Loading));
        load.set_state(State::Loading);
        let lines = changes.lines(&load);
        let states: Vec<_> = lines.iter().map(|l| l.split(' ').nth(2).unwrap()).collect();
        assert_eq!(states, ["WAITING", "LISTING", "LOADING"]);
        assert_eq!(changes.lines(&load), [""; 0]);

        load.sequence = 8;
        load.set_reason(Reason::NotEnoughRoom);
        assert_eq!(changes.lines(&load).len(), 1, "a new reason is news");
    }

    #[test]
    fn a_state_whose_transition_is_not_listed_is_told_all_the_same() {
        let mut changes = Changes::new(PLAIN);
        let mut load = load(State::Loading);
        changes.lines(&load);
        load.sequence += 100;
        load.set_state(State::Loaded);
        assert_eq!(changes.lines(&load).len(), 1);
    }

    #[test]
    fn progress_is_told_in_steps_or_after_a_pause() {
        let mut lines = Lines::new(PLAIN);
        let start = Instant::now();
        assert_eq!(lines.load(&cached(1, 0), start).len(), 1);
        assert_eq!(lines.load(&cached(2, 9), start), [""; 0]);
        assert_eq!(lines.load(&cached(3, 10), start).len(), 1);
        assert_eq!(lines.load(&cached(4, 11), start + PAUSE / 2), [""; 0]);
        assert_eq!(lines.load(&cached(5, 12), start + PAUSE).len(), 1);
        assert_eq!(lines.load(&cached(6, 12), start + 3 * PAUSE), [""; 0], "nothing new");
    }
}
