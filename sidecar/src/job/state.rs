//! States, events, and the table of what may follow what.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Count, EngineKind, FailureList, Remnant};

/// Where a load stands. See `Load.State` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Waiting,
    Listing,
    Loading,
    Verifying,
    Loaded,
    Failed,
    Cancelled,
    Stale,
}

/// Why a load waits, failed, or was withdrawn. See `Load.Reason` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    AlluxioUnreachable,
    WorkersMissing,
    NoJobWorker,
    NotEnoughRoom,
    CommandMissing,
    PathNotFound,
    Incomplete,
    TimedOut,
    GateTimedOut,
    CancelledByUser,
    ClusterChanged,
    MountsChanged,
    Evicted,
    Empty,
    Internal,
}

/// What can happen to a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A slot is free and no running load overlaps.
    Admitted,
    GateShut {
        reason: Reason,
        message: String,
    },
    /// `cluster`: identity of the cluster behind them.
    GatesOpened {
        cluster: String,
    },
    /// The listing found every block in place, or no attempt is left.
    LoadingSkipped,
    LoadingStarted {
        engine: EngineKind,
        why: String,
        message: String,
        /// What distributedLoad left undone is loaded; does not count as an attempt.
        top_up: bool,
        /// The attempt goes on that a restart of the sidecar cut short, or the job service refused.
        resumed: bool,
        /// What it may leave in the job service.
        remnant: Option<Remnant>,
    },
    /// The command told its id in the job service.
    Submitted {
        job_control_id: i64,
    },
    /// The engine has ended, however.
    LoadingEnded {
        message: String,
    },
    /// Nothing of ours is left in the job service.
    RemnantCleared,
    /// No block that was loaded in a batch is shorter than its file says.
    LengthsProven,
    /// An earlier load may have left some.
    LengthsDoubted,
    /// The verification ended, and these files are not loaded. `message`: what comes next.
    FoundMissing {
        failures: FailureList,
        message: String,
    },
    /// Every block was seen in place.
    Verified {
        empty: bool,
    },
    Failed {
        reason: Reason,
        message: String,
    },
    CancelRequested,
    /// Nothing of the load runs any more.
    Cancelled,
    /// A check of a LOADED job saw every block in place again.
    SeenAgain {
        count: Count,
    },
    /// A check of a LOADED job found that these files are not in the cache any more.
    FoundGone {
        count: Count,
        failures: FailureList,
        message: String,
    },
    /// The cache that a LOADED job spoke of is gone.
    Withdrawn {
        reason: Reason,
        message: String,
    },
    /// The sidecar was started again.
    Interrupted,
}

/// `event` means nothing in `state`: a fault of the caller, never of a user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{event} is not legal in state {state:?}")]
pub struct IllegalEvent {
    pub state: State,
    pub event: String,
}

impl State {
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Waiting,
        Self::Listing,
        Self::Loading,
        Self::Verifying,
        Self::Loaded,
        Self::Failed,
        Self::Cancelled,
        Self::Stale,
    ];

    /// Not terminal.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Queued | Self::Waiting | Self::Listing | Self::Loading | Self::Verifying)
    }

    /// Counts against `spec.timeout`.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Listing | Self::Loading | Self::Verifying)
    }

    /// The state after `event`. `cancel_requested`: the wish of CancelLoad is recorded.
    pub fn next(self, event: &Event, cancel_requested: bool) -> Result<Self, IllegalEvent> {
        use State::{Cancelled, Failed, Listing, Loaded, Loading, Queued, Stale, Verifying, Waiting};
        Ok(match (self, event) {
            (Queued, Event::Admitted) => Waiting,
            (Waiting | Listing | Verifying, Event::GateShut { .. }) => Waiting,
            (Waiting, Event::GatesOpened { .. }) => Listing,
            (Listing, Event::LoadingSkipped) => Verifying,
            (Listing | Verifying, Event::LoadingStarted { .. }) => Loading,
            (Loading, Event::Submitted { .. }) => Loading,
            (Loading, Event::LoadingEnded { .. }) => Verifying,
            (live, Event::RemnantCleared | Event::LengthsProven | Event::LengthsDoubted)
                if live.is_live() =>
            {
                live
            }
            (Verifying, Event::FoundMissing { .. }) => Verifying,
            // Whoever was told that the load will be cancelled must not find it LOADED or FAILED.
            (Verifying, Event::Verified { .. }) if !cancel_requested => Loaded,
            (live, Event::Failed { .. }) if live.is_live() && !cancel_requested => Failed,
            (live, Event::CancelRequested) if live.is_live() => live,
            (live, Event::Cancelled) if live.is_live() && cancel_requested => Cancelled,
            (Loaded, Event::SeenAgain { .. }) => Loaded,
            (Loaded, Event::FoundGone { .. } | Event::Withdrawn { .. }) => Stale,
            (Queued, Event::Interrupted) => Queued,
            (Waiting | Listing | Loading | Verifying, Event::Interrupted) => Waiting,
            (state, event) => return Err(IllegalEvent { state, event: format!("{event:?}") }),
        })
    }
}

impl Reason {
    /// May pass without anybody changing the load.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::AlluxioUnreachable | Self::WorkersMissing | Self::NoJobWorker | Self::NotEnoughRoom
        )
    }
}
