//! The sidecar with a clock that a test moves, by the seconds in the file that PRELOAD_TEST_CLOCK names.

use jiff::{SignedDuration, Timestamp};
use preload_sidecar::{clock::Clock, program};
use preload_tests::torture::clock::MovedClock;
use std::process::ExitCode;

fn main() -> ExitCode {
    program::main(Clock::from_fn(|| {
        let now = Timestamp::now();
        // Far from the ends of time.
        now.checked_add(SignedDuration::from_secs(MovedClock::read())).unwrap_or(now)
    }))
}
