//! The bandwidth that a load may use, over all workers. Pure: `now` is an argument.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// Unused time is not saved up beyond this, so that a pause is not followed by a burst.
const BURST: Duration = Duration::from_millis(200);

/// Longer than any load; a block may be as long as a master says.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Lets so many bytes a second pass, on average.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: Option<NonZeroU64>,
    /// When what was let pass so far is paid for.
    paid: Option<Instant>,
}

impl Throttle {
    /// `None`: no limit.
    #[must_use]
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, paid: None }
    }

    /// When the next bytes may pass; `None`: now.
    #[must_use]
    pub(super) fn opens(&self, now: Instant) -> Option<Instant> {
        self.paid.filter(|paid| *paid > now)
    }

    /// Bytes pass, however many: the next ones wait the longer for it.
    pub(super) fn pass(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.bytes_per_second else { return };
        let cost =
            Duration::try_from_secs_f64(bytes as f64 / rate.get() as f64).unwrap_or(FOREVER).min(FOREVER);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(earliest)) + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_everything_passes() {
        let mut throttle = Throttle::new(None);
        let now = Instant::now();
        throttle.pass(u64::MAX, now);
        assert_eq!(throttle.opens(now), None);
    }

    #[test]
    fn a_block_beyond_any_length_is_waited_for_and_no_more() {
        let mut throttle = Throttle::new(NonZeroU64::new(1));
        let now = Instant::now();
        for bytes in [i64::MAX.cast_unsigned(), u64::MAX] {
            throttle.pass(bytes, now);
            assert!(throttle.opens(now).is_some());
        }
    }

    #[test]
    fn bytes_pass_at_the_rate_whatever_their_size() {
        let mut throttle = Throttle::new(NonZeroU64::new(1000));
        let begun = Instant::now();
        let (mut now, mut passed) = (begun, 0);
        for bytes in [5000, 1, 100, 900, 3999] {
            now = throttle.opens(now).unwrap_or(now);
            throttle.pass(bytes, now);
            passed += bytes;
        }
        let end = throttle.opens(now).unwrap();
        assert_eq!((end - begun).as_secs_f64().round() as u64, passed / 1000);
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let mut throttle = Throttle::new(NonZeroU64::new(1000));
        let begun = Instant::now();
        throttle.pass(1, begun);
        let later = begun + Duration::from_secs(60);
        throttle.pass(1000, later);
        assert!(throttle.opens(later).unwrap() >= later + Duration::from_millis(800));
    }
}
