//! One container that runs on a node: its processes, its memory, and signals to it.
//!
//! Invariants: it is the container as it was when it was looked up; a restart makes another.

use super::node::Node;
use crate::cgroup;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes, as its control group counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub used: u64,
    /// The most there was so far.
    pub peak: u64,
    /// A number beyond any machine where there is none.
    pub limit: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Container<'a> {
    pub(super) node: &'a Node,
    pub(super) sandbox: &'a Sandbox,
    pub(super) id: String,
}

impl Container<'_> {
    /// As containerd calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn node(&self) -> &Node {
        self.node
    }

    fn group(&self) -> Result<PathBuf> {
        let found = cgroup::find_below(self.node.machine().group(), &self.id);
        found.with_context(|| format!("container {} does not run on {}", self.id, self.node.name()))
    }

    /// Its processes, as this machine counts.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let text = fs::read_to_string(self.group()?.join("cgroup.procs")).context("read its processes")?;
        text.lines().map(|line| line.parse().with_context(|| format!("understand {line:?}"))).collect()
    }

    pub fn memory(&self) -> Result<Memory> {
        let group = self.group()?;
        Ok(Memory {
            used: number(&group, ["memory.usage_in_bytes", "memory.current"])?,
            peak: number(&group, ["memory.max_usage_in_bytes", "memory.peak"])?,
            limit: number(&group, ["memory.limit_in_bytes", "memory.max"])?,
        })
    }

    /// Signals its first process.
    pub async fn kill(&self, signal: Signal) -> Result<()> {
        let arguments = ["tasks", "kill", "--signal", signal.as_str(), &self.id];
        self.node.ctr(self.sandbox, &arguments).await.map(drop)
    }
}

/// From the file of that name that there is: the one of cgroup version 1, or 2.
fn number(group: &Path, names: [&str; 2]) -> Result<u64> {
    let text = names.iter().find_map(|name| fs::read_to_string(group.join(name)).ok());
    let text = text.with_context(|| format!("{} counts no memory", group.display()))?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().with_context(|| format!("understand {text:?}")),
    }
}
