//! A sidecar whose wall clock a test moves: `preload-test-sidecar` reads by how much from a file, each time.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Names the file.
pub const VARIABLE: &str = "PRELOAD_TEST_CLOCK";
/// File name of the binary, which is the sidecar but for its clock.
pub const PROGRAM: &str = "preload-test-sidecar";

/// Between a move and the reading of it.
const SLACK: Duration = Duration::from_secs(1);

/// A file with a number of seconds, and all that were in it.
#[derive(Debug)]
pub struct MovedClock {
    file: PathBuf,
    /// From the true time on.
    moves: Mutex<Vec<(SystemTime, i64)>>,
}

impl MovedClock {
    pub fn new(file: PathBuf) -> Result<Self> {
        let clock = Self { file, moves: Mutex::default() };
        clock.move_by(0)?;
        Ok(clock)
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// From the true time.
    pub fn move_by(&self, seconds: i64) -> Result<()> {
        // Never half a number: whoever reads sees the old file or the new one.
        let new = self.file.with_extension("new");
        fs::write(&new, seconds.to_string()).context("write the clock")?;
        fs::rename(&new, &self.file).context("move the clock")?;
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).push((SystemTime::now(), seconds));
        Ok(())
    }

    /// The earliest true time at which the clock may have shown `shown`; none, if it never can have.
    pub fn earliest(&self, shown: SystemTime) -> Option<SystemTime> {
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = moves.iter().skip(1).map(|(from, _)| Some(*from)).chain([None]);
        let times = moves.iter().zip(ends).filter_map(|((from, seconds), until)| {
            let by = Duration::from_secs(seconds.unsigned_abs());
            let time = if *seconds < 0 { shown.checked_add(by) } else { shown.checked_sub(by) }?;
            (time + SLACK >= *from && until.is_none_or(|until| time <= until + SLACK)).then_some(time)
        });
        times.min()
    }

    /// Seconds in the file that the environment names; 0 without one.
    pub fn read() -> i64 {
        let file = std::env::var_os(VARIABLE).map(PathBuf::from);
        let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_shown_is_one_of_those_that_are_true() {
        let folder = tempfile::tempdir().unwrap();
        let clock = MovedClock::new(folder.path().join("clock")).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        *clock.moves.lock().unwrap() = vec![(at(1000), 0), (at(2000), -500), (at(3000), 100)];
        assert_eq!(clock.earliest(at(1100)), Some(at(1100)));
        // In the first stretch, and in the second once more.
        assert_eq!(clock.earliest(at(1600)), Some(at(1600)));
        assert_eq!(clock.earliest(at(2400)), Some(at(2900)));
        assert_eq!(clock.earliest(at(3200)), Some(at(3100)));
        assert_eq!(clock.earliest(at(500)), None);
    }
}
