//! Memory of a process, as the kernel counts it.

use anyhow::{Context, Result};
use std::fs;

/// Decimal, as the bars are.
const MEGABYTE: f64 = 1e6;

/// Resident memory of a process, in MB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: f64,
    /// Of it, what is not the binary and its libraries.
    pub anonymous: f64,
    /// Highest since it was started.
    pub peak: f64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kilobytes.map(|kilobytes| kilobytes * 1024.0 / MEGABYTE).with_context(|| format!("no {name}"))
        };
        Ok(Self { now: field("VmRSS:")?, anonymous: field("RssAnon:")?, peak: field("VmHWM:")? })
    }
}
