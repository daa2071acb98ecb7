//! A machine of its own on this one: network, mount and pid namespaces and a control group.
//!
//! A `preload-test-leash machine` holds it: it vanishes, with all that runs on it, with the test process, also
//! when that is killed with SIGKILL. Only root can have one.
//!
//! Invariants: its files are those of this machine until something is mounted over them, which nobody else
//! sees; its network starts with nothing but a loopback device that is down.

use crate::leash::{self, Leash};
use crate::sandbox::{Output, Sandbox};
use anyhow::{Context, Result};
use std::io::BufRead;
use std::path::Path;
use std::process::{Child, ChildStdin, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where root's programs are, which a PATH may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// See the module.
#[derive(Debug)]
pub struct Machine {
    group: String,
    pid: u32,
    leash: Child,
    claim: Mutex<Option<ChildStdin>>,
}

impl Machine {
    /// `name` is unique in the sandbox.
    pub fn new(sandbox: &Sandbox, name: &str) -> Result<Self> {
        let directory = sandbox.directory();
        let group = directory.file_name().context("the sandbox has no name")?.to_string_lossy();
        let group = format!("{group}-{name}");
        let mut command = Command::new(leash::sibling(leash::PROGRAM)?);
        command.arg("machine").arg(&group).arg(directory);
        let (leash, claim, mut events) = leash::spawn(command)?;
        let mut line = String::new();
        events.read_line(&mut line).context("read from the leash")?;
        let pid = line.trim_end().strip_prefix("started ").with_context(|| format!("no machine {name}"))?;
        let pid = pid.parse().context("read the pid")?;
        Ok(Self { group, pid, leash, claim: Mutex::new(Some(claim)) })
    }

    /// Its first process, as this machine counts.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Name of its control group in every hierarchy.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// As [`Leash::start`], but there. Processes that lose their parent stay until the machine goes.
    pub fn start(&self, command: &Command, stdout: &Path, stderr: &Path) -> Result<Leash> {
        Leash::start_on(Some(self.pid), &with_system_path(command), stdout, stderr)
    }

    /// As [`Sandbox::run`], but there.
    pub async fn run(&self, sandbox: &Sandbox, command: &Command, limit: Duration) -> Result<Output> {
        sandbox.run_on(Some(self.pid), &with_system_path(command), limit).await
    }

    /// Runs a shell script that stops at the first command that fails.
    pub async fn script(&self, sandbox: &Sandbox, script: &str, limit: Duration) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-euc", script]);
        self.run(sandbox, &command, limit).await?.success().map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It ends when all that ran there is gone; an error means that it is gone already.
        let _ = self.leash.wait();
    }
}

/// The same, unless it sets a PATH of its own.
fn with_system_path(command: &Command) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut with = Command::new(command.get_program());
    with.args(command.get_args()).env("PATH", format!("{path}:{SYSTEM_PATH}"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => with.env(name, value),
            None => with.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        with.current_dir(directory);
    }
    with
}
