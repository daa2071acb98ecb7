//! A loopback network 127.x.y and a directory that nobody else has, for one cluster or one sidecar.
//!
//! A `preload-test-leash sandbox` holds both, so that they vanish also when the test process is killed.
//! Two runs side by side never share a network, hence ports need no search: any port is free there.

use crate::leash::{self, Exit, Leash};
use crate::processes::{self, Process};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::BufRead;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// What a short-lived program said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output; an error with everything it said unless it exited with 0.
    pub fn success(self) -> Result<String> {
        if !self.exit.success() {
            bail!("ended with {:?}: {}{}", self.exit, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Set PRELOAD_TESTS_KEEP to any value to keep the directory, for a look at the logs.
#[derive(Debug)]
pub struct Sandbox {
    network: String,
    directory: PathBuf,
    numbers: AtomicU16,
    leash: Child,
    claim: Mutex<Option<ChildStdin>>,
}

/// Where a sandbox with that directory keeps what belongs into memory; its leash removes it.
pub fn memory_of(directory: &Path) -> Option<PathBuf> {
    directory.file_name().map(|name| Path::new("/dev/shm").join(name))
}

impl Sandbox {
    pub fn new() -> Result<Self> {
        let mut command = Command::new(leash::sibling(leash::PROGRAM)?);
        command.arg("sandbox");
        let (leash, claim, mut events) = leash::spawn(command)?;
        let mut line = String::new();
        events.read_line(&mut line).context("read from the leash")?;
        let claimed = line.trim_end().strip_prefix("claimed ").and_then(|claimed| claimed.split_once(' '));
        let (network, directory) = claimed.with_context(|| format!("no sandbox: the leash said {line:?}"))?;
        Ok(Self {
            network: network.to_owned(),
            directory: directory.into(),
            numbers: AtomicU16::new(1),
            leash,
            claim: Mutex::new(Some(claim)),
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An address of the network; 254 is taken.
    pub fn address(&self, host: usize) -> String {
        format!("{}.{host}", self.network)
    }

    /// A number that nobody else in this sandbox got: for a port or a file name.
    pub fn number(&self) -> u16 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// `127.x.y.200:PORT` with a port that nothing else uses.
    pub fn free_address(&self) -> String {
        format!("{}:{}", self.address(200), 7_000 + self.number())
    }

    /// A new directory whose name starts with `name`.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.directory.join(format!("{name}-{}", self.number()));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// A new directory of that name in memory, with a link to it in ours.
    pub fn memory_folder(&self, name: &str) -> Result<PathBuf> {
        let memory = memory_of(&self.directory).context("the sandbox has no name")?.join(name);
        fs::create_dir_all(&memory).with_context(|| format!("make {}", memory.display()))?;
        let link = self.directory.join(name);
        symlink(&memory, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(memory)
    }

    /// Runs a program to its end, at most for `limit`; see [`Leash::start`] for what it inherits.
    pub async fn run(&self, command: &Command, limit: Duration) -> Result<Output> {
        self.run_on(None, command, limit).await
    }

    pub(crate) async fn run_on(
        &self,
        machine: Option<u32>,
        command: &Command,
        limit: Duration,
    ) -> Result<Output> {
        let folder = self.folder("run")?;
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let leash = Leash::start_on(machine, command, &stdout, &stderr)?;
        let exit = leash.exited(limit).await.with_context(|| format!("run {command:?}"))?;
        let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Output { exit, stdout: read(&stdout)?, stderr: read(&stderr)? })
    }

    /// Processes whose arguments name the directory: everything that we started, and what that started.
    pub fn processes(&self) -> Vec<Process> {
        processes::naming(&self.directory)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.claim.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // It removes the directory first; an error means that it is gone already.
        let _ = self.leash.wait();
    }
}
