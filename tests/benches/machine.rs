//! What a process takes of the machine.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// Decimal, as the bars are.
const MEGABYTE: f64 = 1e6;

/// Resident memory of a process, in MB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    /// Of it, what is not the binary and its libraries.
    pub(crate) anonymous: f64,
    /// Highest since it was started.
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
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

/// Time that the threads of a process have spent on a core, but for those that have ended.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?;
    let mut total = Duration::ZERO;
    for thread in threads {
        // One that ends while we look is left out.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        total += Duration::from_nanos(nanoseconds.context("schedstat has no time")?);
    }
    Ok(total)
}

/// User and system time of a process, also of threads that have ended, in steps of 10 ms.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // "pid (name) state ...": the name may hold anything. utime is field 14, stime the next.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
    let ticks: Option<Vec<u32>> = fields.map(|f| f.skip(11).take(2).flat_map(str::parse).collect());
    let ticks = ticks.filter(|ticks| ticks.len() == 2).context("stat has no times")?;
    Ok(TICK * ticks.iter().sum())
}
