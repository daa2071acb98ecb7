//! Where everybody writes down what they saw, on one clock.

use super::history::{Event, History, What};
use alluxio_preload_api::v1::load::State;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all who take part in a run.
#[derive(Debug)]
pub struct Record {
    since: Instant,
    history: Mutex<History>,
}

impl Record {
    pub fn begin() -> Self {
        Self { since: Instant::now(), history: Mutex::default() }
    }

    pub fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// It was asked at `begun`, and the answer is there now.
    pub fn add(&self, begun: Duration, what: What) {
        let mut history = self.lock();
        // Under the lock: events are in the order of their ends.
        let ended = self.now();
        history.events.push(Event { begun, ended, what });
    }

    /// From now on everything must succeed.
    pub fn settle(&self) {
        let now = self.now();
        self.lock().settled = Some(now);
    }

    /// What GetLoad said of a load last.
    pub fn last_state(&self, id: &str) -> Option<State> {
        self.lock().events.iter().rev().find_map(|event| match &event.what {
            What::Get { id: other, answer: Ok(load) } if other == id => Some(load.state()),
            _ => None,
        })
    }

    /// So far.
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
