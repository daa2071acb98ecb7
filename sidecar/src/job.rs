//! What a load is: its wish, its state, and the one function that changes it.
//!
//! Plain types: nothing here knows gRPC, SQL, tokio or Alluxio's RPCs, and nothing reads a clock; `now` is
//! an argument. Every change of a [`Job`] goes through [`Job::apply`] (a change of state or of a wish) or
//! [`Job::advance`] (progress), so that a restart replays through the same rules.
//!
//! Invariants:
//! - `sequence` grows with every change and stays below `sequence_ceiling`, the durable reservation;
//! - a terminal job changes only from LOADED to STALE, or to LOADED when it was verified once more;
//! - within an attempt no count of `progress` goes back;
//! - no number overflows, whatever a record holds: a job that was read must not end the process.

mod path;
mod progress;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use path::AlluxioPath;
pub use progress::{Count, Progress};
pub use spec::{EngineChoice, LoadId, LoadMetadata, Spec, SpecError};
pub use state::{Event, IllegalEvent, Reason, State};

/// Changes of state that a job remembers; the contract promises 16.
pub const TRANSITIONS_KEPT: usize = 16;
/// Said from CancelLoad to CANCELLED.
const CANCELLING: &str = "cancelling: it ends with what it has under way";

/// How far `sequence` may run ahead of what is durable. At most a few changes a second are published, so
/// one write serves several minutes.
pub const SEQUENCE_RESERVE: u64 = 1024;

/// One load: the wish and what became of it. Serialised as the body of a stored row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: LoadId,
    pub uid: Uuid,
    pub spec: Spec,
    pub state: State,
    pub reason: Option<Reason>,
    /// One sentence for people, or empty.
    pub message: String,
    pub progress: Progress,
    /// Attempts to load so far; restarts and top-ups do not count.
    pub attempt: u32,
    /// Runs that loaded what distributedLoad had left undone.
    pub top_ups: u32,
    pub engine: Option<EngineKind>,
    pub engine_reason: String,
    pub sequence: u64,
    /// After a crash `sequence` goes on from here: no value that was ever seen is used again.
    pub sequence_ceiling: u64,
    pub transitions: VecDeque<Transition>,
    /// Identity of the Alluxio cluster listed last, or empty.
    pub cluster: String,
    pub created: Timestamp,
    /// Of the first LISTING.
    pub started: Option<Timestamp>,
    /// Of the terminal state.
    pub ended: Option<Timestamp>,
    pub updated: Timestamp,
    /// The durable wish of CancelLoad.
    pub cancel_requested: Option<Timestamp>,
    /// Since when, without loading in between, a gate has been shut; moved on by the time of a listing.
    pub shut_since: Option<Timestamp>,
    /// Time spent in LISTING, LOADING and VERIFYING before the present state.
    pub active: Duration,
    /// What a run of an engine may have left behind in Alluxio's job service.
    pub remnant: Option<Remnant>,
    /// Blocks were loaded in batches, and nobody has proven yet that they are whole.
    #[serde(default)]
    pub lengths_unproven: bool,
    pub failures: FailureList,
    /// When every block was last seen in place. Jobs that were stored before there was this field lack it.
    #[serde(default)]
    pub verified: Option<Timestamp>,
}

/// Which engine ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    DistributedLoad,
    Native,
}

/// Where the failures of the last verification stand in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureList {
    /// Number of the verification that wrote them; rows of other generations are rubbish.
    pub generation: u64,
    pub count: u64,
}

/// What tells the jobs of our command from all others in Alluxio's job service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remnant {
    /// Largest job id in the service before our command began; ours are larger (ids only grow).
    pub job_floor: i64,
    /// Of our command, once it printed it.
    pub job_control_id: Option<i64>,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub reason: Option<Reason>,
    pub message: String,
    pub time: Timestamp,
    pub sequence: u64,
}

/// A file that is not loaded, and why. Bytes missing are over all wished copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub path: String,
    pub length: u64,
    pub bytes_missing: u64,
    pub replicas_seen: u32,
    pub reason: String,
}

impl Job {
    /// A new job, QUEUED.
    #[must_use]
    pub fn new(id: LoadId, uid: Uuid, spec: Spec, now: Timestamp) -> Self {
        let replicas = spec.replicas.get();
        Self {
            id,
            uid,
            spec,
            state: State::Queued,
            reason: None,
            message: String::new(),
            progress: Progress::new(replicas),
            attempt: 0,
            top_ups: 0,
            engine: None,
            engine_reason: String::new(),
            sequence: 1,
            sequence_ceiling: 1 + SEQUENCE_RESERVE,
            transitions: VecDeque::new(),
            cluster: String::new(),
            created: now,
            started: None,
            ended: None,
            updated: now,
            cancel_requested: None,
            shut_since: None,
            active: Duration::ZERO,
            remnant: None,
            lengths_unproven: false,
            failures: FailureList::default(),
            verified: None,
        }
    }

    /// Applies `event`, or says that it is not legal now and changes nothing. The caller makes the result
    /// durable before anyone hears of it.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), IllegalEvent> {
        let from = self.state;
        let to = from.next(&event, self.cancel_requested.is_some())?;
        if from.is_active() && to != from {
            // Time in which the sidecar did not run is nobody's.
            let until = if event == Event::Interrupted { self.updated.min(now) } else { now };
            self.active = self.active.saturating_add(self.in_state_for(until));
        }
        match event {
            Event::Admitted | Event::LoadingSkipped => self.say(None, String::new()),
            Event::GatesOpened { cluster } => {
                self.cluster = cluster;
                self.progress.begin_listing();
                self.say(None, String::new());
            }
            Event::GateShut { reason, message } => {
                // A listing that came to its end may have taken longer than anybody wants to wait.
                let listed = from == State::Listing && self.progress.count().totals_exact;
                let moved_on = if listed { self.in_state_for(now) } else { Duration::ZERO };
                let later =
                    |since: Timestamp| since.checked_add(moved_on).map_or(now, |moved| moved.min(now));
                self.shut_since = Some(self.shut_since.map_or(now, later));
                self.say(Some(reason), message);
            }
            Event::LoadingStarted { engine, why, message, top_up, resumed, remnant } => {
                self.shut_since = None;
                if top_up {
                    self.top_ups = self.top_ups.saturating_add(1);
                } else if !resumed {
                    self.attempt = self.attempt.saturating_add(1);
                }
                self.engine = Some(engine);
                self.engine_reason = why;
                self.remnant = remnant;
                self.lengths_unproven |= engine == EngineKind::Native;
                self.progress.begin_attempt();
                self.say(None, message);
            }
            Event::LoadingEnded { message } => {
                self.progress.pause();
                self.say(None, message);
            }
            Event::Submitted { job_control_id } => {
                if let Some(remnant) = &mut self.remnant {
                    remnant.job_control_id = Some(job_control_id);
                }
            }
            Event::RemnantCleared => self.remnant = None,
            Event::LengthsProven => self.lengths_unproven = false,
            Event::LengthsDoubted => self.lengths_unproven = true,
            Event::FoundMissing { failures, message } => {
                self.failures = failures;
                self.say(None, message);
            }
            Event::Verified { empty } => self.seen_in_place(empty, now),
            Event::SeenAgain { count } => {
                self.progress.reset(count);
                self.seen_in_place(count.files_total == 0, now);
            }
            Event::FoundGone { count, failures, message } => {
                self.progress.reset(count);
                self.failures = failures;
                self.say(Some(Reason::Evicted), message);
            }
            Event::Failed { reason, message } | Event::Withdrawn { reason, message } => {
                self.say(Some(reason), message);
            }
            Event::CancelRequested => {
                if self.cancel_requested.is_none() {
                    self.cancel_requested = Some(now);
                    self.say(None, CANCELLING.to_owned());
                }
            }
            Event::Cancelled => self.say(Some(Reason::CancelledByUser), "cancelled by CancelLoad".to_owned()),
            Event::Interrupted => {
                self.shut_since = None;
                self.progress.pause();
                let cancelling = self.cancel_requested.is_some();
                let what = if cancelling { CANCELLING } else { "the load goes on" };
                self.say(None, format!("the sidecar was restarted; {what}"));
            }
        }
        self.state = to;
        self.sequence = self.sequence.saturating_add(1);
        self.sequence_ceiling = self.sequence.saturating_add(SEQUENCE_RESERVE);
        self.updated = now;
        if to != from {
            self.record(from, now);
        }
        Ok(())
    }

    /// Takes over newer counts. True: `sequence` reached its reservation, and the job must be made durable
    /// before it is published.
    pub fn advance(&mut self, count: Count, now: Timestamp) -> bool {
        self.progress.advance(count);
        self.sequence = self.sequence.saturating_add(1);
        self.updated = now;
        if self.sequence < self.sequence_ceiling {
            return false;
        }
        self.sequence_ceiling = self.sequence.saturating_add(SEQUENCE_RESERVE);
        true
    }

    /// Brings a job that was read from the store after a stop into a state from which it goes on.
    #[must_use]
    pub fn recovered(mut self, now: Timestamp) -> Self {
        if self.state.is_live() {
            self.sequence = self.sequence.max(self.sequence_ceiling);
            // Legal in every live state: proven by the table in tests.
            let _ = self.apply(Event::Interrupted, now);
        }
        self
    }

    /// Takes an exact count over as it is: the end of a listing or a verification.
    pub fn count(&mut self, exact: Count, now: Timestamp) -> bool {
        self.progress.reset(exact);
        self.advance(exact, now)
    }

    /// What is left of `spec.timeout`; `None`: no limit.
    #[must_use]
    pub fn time_left(&self, now: Timestamp) -> Option<Duration> {
        let present = if self.state.is_active() { self.in_state_for(now) } else { Duration::ZERO };
        Some(self.spec.timeout?.saturating_sub(self.active.saturating_add(present)))
    }

    /// What is left of `spec.wait_timeout` while a gate is shut.
    #[must_use]
    pub fn wait_left(&self, now: Timestamp) -> Duration {
        let shut = self.shut_since.map_or(Duration::ZERO, |since| elapsed(since, now));
        self.spec.wait_timeout.saturating_sub(shut)
    }

    /// When a LOADED job is to be checked again.
    #[must_use]
    pub fn check_due(&self) -> Option<Timestamp> {
        let interval = self.spec.reverify_interval.filter(|_| self.state == State::Loaded)?;
        let seen = self.verified.or(self.ended).unwrap_or(self.created);
        // Beyond the end of time: never.
        seen.checked_add(interval).ok()
    }

    fn seen_in_place(&mut self, empty: bool, now: Timestamp) {
        self.failures = FailureList::default();
        self.verified = Some(now);
        let warning = format!("there are no data below {}", self.spec.path);
        if empty { self.say(Some(Reason::Empty), warning) } else { self.say(None, String::new()) }
    }

    fn in_state_for(&self, now: Timestamp) -> Duration {
        self.transitions.back().map_or(Duration::ZERO, |t| elapsed(t.time, now))
    }

    fn say(&mut self, reason: Option<Reason>, message: String) {
        self.reason = reason;
        self.message = message;
    }

    fn record(&mut self, from: State, now: Timestamp) {
        if self.state == State::Listing {
            self.started.get_or_insert(now);
        }
        if !self.state.is_live() {
            self.ended.get_or_insert(now);
            self.progress.pause();
        }
        if self.transitions.len() == TRANSITIONS_KEPT {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            from,
            to: self.state,
            reason: self.reason,
            message: self.message.clone(),
            time: now,
            sequence: self.sequence,
        });
    }
}

/// Zero when the clock went back.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}
