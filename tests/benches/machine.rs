//! What a process takes of the machine.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

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

/// Processes that run or wait for a core or a disk, of the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("read the load average")?;
    let first = text.split(' ').next().and_then(|first| first.parse().ok());
    first.context("no load average")
}
