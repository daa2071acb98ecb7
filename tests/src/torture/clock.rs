//! A sidecar whose wall clock a test moves: `preload-test-sidecar` reads by how much from a file, each time.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Names the file.
pub const VARIABLE: &str = "PRELOAD_TEST_CLOCK";
/// File name of the binary, which is the sidecar but for its clock.
pub const PROGRAM: &str = "preload-test-sidecar";

/// A file with a number of seconds.
#[derive(Debug)]
pub struct MovedClock {
    file: PathBuf,
}

impl MovedClock {
    pub fn new(file: PathBuf) -> Result<Self> {
        let clock = Self { file };
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
        fs::rename(&new, &self.file).context("move the clock")
    }

    /// Seconds in the file that the environment names; 0 without one.
    pub fn read() -> i64 {
        let file = std::env::var_os(VARIABLE).map(PathBuf::from);
        let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}
