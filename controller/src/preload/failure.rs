//! Which failures are tried again without a change of the spec, and when. Pure.

use std::time::Duration;

/// First and longest wait before a failed load is tried again.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Reasons of the sidecar that may pass by themselves; all others wait for a change of the spec.
#[must_use]
pub(super) fn is_transient(reason: &str) -> bool {
    matches!(
        reason,
        "AlluxioUnreachable"
            | "WorkersMissing"
            | "NoJobWorker"
            | "NotEnoughRoom"
            | "GateTimedOut"
            | "ClusterChanged"
            | "MountsChanged"
            | "Evicted"
            | "Internal"
    )
}

/// The wait before the retry that follows `retries` others: doubled each time, less up to a half that depends
/// on `salt` (the load's id), so that a thousand loads which failed together do not come back together.
#[must_use]
pub(super) fn delay(retries: i32, salt: &str) -> Duration {
    let doublings = u32::try_from(retries).unwrap_or(0).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    // FNV-1a: stable over versions and restarts, unlike the hashers of the standard library.
    let hash =
        salt.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    whole / 2 + (whole / 2).mul_f64(f64::from(hash) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_differ() {
        for (retries, whole) in [(0, 30), (1, 60), (3, 240), (5, 900), (40, 900), (i32::MAX, 900), (-1, 30)] {
            let delay = delay(retries, "a");
            let whole = Duration::from_secs(whole);
            assert!(delay >= whole / 2 && delay <= whole, "{retries}: {delay:?}");
        }
        assert_ne!(delay(0, "a"), delay(0, "b"));
        assert_eq!(delay(2, "a"), delay(2, "a"));
    }

    #[test]
    fn what_the_user_has_to_mend_is_not_tried_again() {
        for reason in
            ["PathNotFound", "Incomplete", "TimedOut", "CommandMissing", "CancelledByUser", "Refused", ""]
        {
            assert!(!is_transient(reason), "{reason}");
        }
    }
}
