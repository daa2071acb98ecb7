//! What the figures were measured on, and what a process takes of it.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
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

/// Facts of the machine for the head of the document: nothing that names it.
pub(crate) fn facts(directory: &Path) -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes = first("/proc/meminfo", "MemTotal");
    let memory = kilobytes.trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e9;
    format!(
        "{} {cores} cores ({}), {memory:.0} GB of memory, Linux {}, {} file system.\n\
         Sidecar {}, {}; Alluxio {}, {}.\n",
        said("date", &["-u", "+Measured on %Y-%m-%d:"]),
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", ""),
        file_system(directory),
        env!("CARGO_PKG_VERSION"),
        said("rustc", &["--version"]).split(" (").next().unwrap_or_default(),
        preload_tests::prerequisites::ALLUXIO,
        java(),
    )
}

/// Type of the file system that holds `directory`.
pub(crate) fn file_system(directory: &Path) -> String {
    let table = said("df", &["--output=fstype", &directory.to_string_lossy()]);
    table.lines().last().unwrap_or_default().trim().to_owned()
}

fn java() -> String {
    let Ok(java) = preload_tests::prerequisites::java() else { return String::new() };
    let version = said(&java.to_string_lossy(), &["--version"]);
    version.lines().next().unwrap_or_default().to_owned()
}

/// What a small program prints, or nothing.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}
