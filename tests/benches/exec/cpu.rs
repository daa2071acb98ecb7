//! The CPU time of everything that takes part: of this process and all that it starts, also of what has ended,
//! and of the pods of a node.
//!
//! Invariant: this process leaves the control group when the [`CpuGroup`] is dropped.

use anyhow::{Context, Result};
use preload_tests::cgroup::{self, Cgroup};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group that this process is in, and so is whatever it starts.
#[derive(Debug)]
pub(super) struct CpuGroup {
    group: Option<Cgroup>,
    directory: PathBuf,
}

impl CpuGroup {
    pub(super) fn enter() -> Result<Self> {
        let name = format!("{}bench-{}", cgroup::PREFIX, std::process::id());
        let group = Some(Cgroup::claim(&name)?);
        let directory = counting(&name)?;
        enter(&directory)?;
        Ok(Self { group, directory })
    }

    /// Since it was entered, with what was used in `pods`, the control group of a node.
    pub(super) fn used(&self, pods: &str) -> Result<Duration> {
        Ok(used(&self.directory)? + used(&counting(pods)?)?)
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        // To the top; what cannot be undone here, the next run sweeps away.
        let left = self.directory.parent().map(enter);
        if let (Some(Ok(())), Some(group)) = (left, self.group.take()) {
            let _ = group.remove();
        }
    }
}

fn enter(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string()).with_context(|| format!("write {}", file.display()))
}

/// Where CPU time is counted: by version 1, where there is that, or 2.
fn counting(name: &str) -> Result<PathBuf> {
    let groups = cgroup::find(name);
    let first = groups.iter().find(|group| group.join("cpuacct.usage").exists());
    let found = first.or_else(|| groups.iter().find(|group| group.join("cpu.stat").exists()));
    found.cloned().with_context(|| format!("nothing counts the CPU time of the control group {name}"))
}

fn used(directory: &Path) -> Result<Duration> {
    if let Ok(text) = fs::read_to_string(directory.join("cpuacct.usage")) {
        return Ok(Duration::from_nanos(text.trim().parse().context("understand cpuacct.usage")?));
    }
    let text = fs::read_to_string(directory.join("cpu.stat")).context("read cpu.stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds = line.context("cpu.stat has no usage")?.parse().context("understand cpu.stat")?;
    Ok(Duration::from_micros(microseconds))
}
