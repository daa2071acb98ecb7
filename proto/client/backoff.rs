//! How long to wait before trying again. Pure: randomness comes in as a number.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubling waits with jitter, bounded in length and number.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Longest first wait.
    pub initial: Duration,
    /// Longest wait at all.
    pub max: Duration,
    /// Tries in a row before giving up.
    pub attempts: u32,
}

impl Default for Backoff {
    /// Gives up after about three minutes: a pod that is scheduled again is back by then.
    fn default() -> Self {
        Self { initial: Duration::from_millis(250), max: Duration::from_secs(15), attempts: 20 }
    }
}

impl Backoff {
    /// The wait before try number `attempt`, counted from 0; `None` when there have been enough.
    ///
    /// It lies between half of and the whole of `initial * 2^attempt`, at most `max`: `random` spreads
    /// thousands of watchers that lost the same sidecar at the same moment.
    pub fn delay(&self, attempt: u32, random: u32) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let half = self.initial.saturating_mul(2u32.saturating_pow(attempt)).min(self.max) / 2;
        Some(half + half.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }

    /// [`delay`](Self::delay) with a number of its own.
    pub fn random_delay(&self, attempt: u32) -> Option<Duration> {
        self.delay(attempt, random())
    }
}

/// Jitter needs no better randomness than the keys of the standard library's hash maps.
fn random() -> u32 {
    (RandomState::new().hash_one(0) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_are_bounded_and_so_is_their_number(
            initial in any::<Duration>(),
            max in any::<Duration>(),
            attempts in any::<u32>(),
            attempt in any::<u32>(),
            random in any::<u32>(),
        ) {
            let backoff = Backoff { initial, max, attempts };
            match backoff.delay(attempt, random) {
                None => prop_assert!(attempt >= attempts),
                Some(delay) => {
                    prop_assert!(attempt < attempts);
                    prop_assert!(delay <= max);
                    prop_assert!(attempt > 0 || delay <= initial);
                }
            }
        }

        #[test]
        fn jitter_takes_at_most_half_and_waits_double_until_the_longest(
            attempt in 0u32..20,
            random in any::<u32>(),
        ) {
            let backoff = Backoff::default();
            let whole = backoff.delay(attempt, u32::MAX).unwrap();
            let delay = backoff.delay(attempt, random).unwrap();
            prop_assert!(delay <= whole && delay >= whole / 2);
            let next = backoff.delay(attempt + 1, u32::MAX).unwrap_or(backoff.max);
            prop_assert!(next == (whole * 2).min(backoff.max));
        }
    }

    #[test]
    fn two_watchers_do_not_wait_alike() {
        let drawn: std::collections::HashSet<u32> = (0..8).map(|_| random()).collect();
        assert!(drawn.len() > 1);
    }
}
