//! A control group of our own with a memory limit, as a container has: version 1 or 2, whichever the machine has.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;

#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    usage: &'static str,
}

impl MemoryGroup {
    pub fn new(sandbox: &Sandbox, limit: u64) -> Result<Self> {
        let name = sandbox.directory().file_name().context("the sandbox has no name")?;
        let (root, file, usage) = if Path::new("/sys/fs/cgroup/memory").is_dir() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        } else if Path::new("/sys/fs/cgroup/cgroup.controllers").is_file() {
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("enable the controller")?;
            ("/sys/fs/cgroup", "memory.max", "memory.peak")
        } else {
            bail!("no memory controller: mount cgroup2 on /sys/fs/cgroup");
        };
        let name = format!("{}-{}", name.to_string_lossy(), sandbox.number());
        let group = Self { directory: Path::new(root).join(name), usage };
        fs::create_dir(&group.directory)
            .context("making a control group needs root: run 'sudo make test'")?;
        fs::write(group.directory.join(file), limit.to_string()).context("set the limit")?;
        Ok(group)
    }

    /// A command that does the rest of its arguments within the group.
    pub fn enter(&self) -> Vec<OsString> {
        let script = r#"echo $$ >"$0" && exec "$@""#;
        vec!["sh".into(), "-c".into(), script.into(), self.directory.join("cgroup.procs").into()]
    }

    /// The most that was ever used, in bytes, page cache included.
    pub fn peak(&self) -> Result<u64> {
        let text = fs::read_to_string(self.directory.join(self.usage)).context("read the usage")?;
        text.trim().parse().context("no number")
    }

    /// Processes that the kernel has ended for want of memory; `None` where it does not count them.
    pub fn killed(&self) -> Option<u64> {
        let events = ["memory.oom_control", "memory.events"];
        let text = events.iter().find_map(|file| fs::read_to_string(self.directory.join(file)).ok())?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its last processes may be just about to end.
        let end = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < end {
            std::thread::yield_now();
        }
    }
}
