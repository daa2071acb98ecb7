//! How far a load is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was counted, or reckoned, at one moment. Bytes count every wished copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub files_total: u64,
    pub files_cached: u64,
    pub files_failed: u64,
    pub bytes_total: u64,
    pub bytes_cached: u64,
    pub bytes_failed: u64,
    pub bytes_per_second: u64,
    pub eta: Option<Duration>,
    /// The listing has ended.
    pub totals_exact: bool,
    /// Counted in the master's block map, not reckoned.
    pub cached_exact: bool,
}

/// The latest [`Count`], kept from going back within an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub replicas: u32,
    #[serde(flatten)]
    count: Count,
}

impl Progress {
    #[must_use]
    pub fn new(replicas: u32) -> Self {
        Self { replicas, count: Count::default() }
    }

    #[must_use]
    pub fn count(&self) -> &Count {
        &self.count
    }

    /// Takes `new` over; cached and failed figures only grow, and stay within the totals.
    pub fn advance(&mut self, new: Count) {
        let old = self.count;
        self.count = Count {
            files_cached: old.files_cached.max(new.files_cached).min(new.files_total),
            bytes_cached: old.bytes_cached.max(new.bytes_cached).min(new.bytes_total),
            files_failed: old.files_failed.max(new.files_failed).min(new.files_total),
            bytes_failed: old.bytes_failed.max(new.bytes_failed).min(new.bytes_total),
            // What was reckoned too high before stays, and was not counted.
            cached_exact: new.cached_exact
                && old.bytes_cached <= new.bytes_cached
                && old.files_cached <= new.files_cached,
            ..new
        };
    }

    /// A new attempt may find less than the one before believed: what an exact count says is taken as it is.
    pub(super) fn begin_attempt(&mut self) {
        self.count.files_failed = 0;
        self.count.bytes_failed = 0;
    }

    /// What was listed before may have changed.
    pub(super) fn begin_listing(&mut self) {
        self.count.totals_exact = false;
    }

    /// Replaces the figures by an exact count: the end of a listing or a verification, where truth beats
    /// continuity.
    pub fn reset(&mut self, exact: Count) {
        self.count = exact;
    }

    /// Nothing is moving.
    pub(super) fn pause(&mut self) {
        self.count.bytes_per_second = 0;
        self.count.eta = None;
    }
}
