//! Processes that never outlive the test process, not even when it is killed with SIGKILL: each runs under
//! a `preload-test-leash`, which holds a pipe from us.
//!
//! Nothing here is tied to a tokio runtime, so that tests with a runtime each can share a process.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// File name of the binary that holds the other end.
pub const PROGRAM: &str = "preload-test-leash";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The leash itself was killed: nothing is known.
    Unknown,
}

impl Exit {
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A running process. Dropping it kills the process and all its descendants, and waits until they are gone.
#[derive(Debug)]
pub struct Leash {
    leash: Child,
    requests: Mutex<Option<ChildStdin>>,
    exit: watch::Receiver<Option<Exit>>,
    pid: u32,
}

impl Leash {
    /// Starts `command` (program, arguments, environment and directory count; its stdio does not). Output is
    /// appended to the two files, which may be the same. Of our environment only PATH, HOME, TMPDIR and
    /// JAVA_HOME are passed on: no locale, as in a container.
    pub fn start(command: &Command, stdout: &Path, stderr: &Path) -> Result<Self> {
        Self::start_on(None, command, stdout, stderr)
    }

    /// On the machine whose first process is `machine`; see [`crate::Machine::start`].
    pub(crate) fn start_on(
        machine: Option<u32>,
        command: &Command,
        stdout: &Path,
        stderr: &Path,
    ) -> Result<Self> {
        let mut leash = Command::new(sibling(PROGRAM)?);
        leash
            .arg("run")
            .arg(machine.map_or("-".to_owned(), |pid| pid.to_string()))
            .arg(stdout)
            .arg(stderr)
            .arg(command.get_program())
            .args(command.get_args());
        inherit_little(&mut leash);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leash.env(name, value),
                None => leash.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            leash.current_dir(directory);
        }
        let (leash, requests, mut events) = spawn(leash)?;
        let mut first = String::new();
        events.read_line(&mut first).context("read from the leash")?;
        let Some(pid) = first.trim_end().strip_prefix("started ") else {
            bail!("could not start a process: {}", first.trim_end());
        };
        let pid = pid.parse().context("read the pid")?;
        let (sender, exit) = watch::channel(None);
        // Ends with the leash, whose exit closes the pipe.
        std::thread::spawn(move || {
            let exit = events.lines().map_while(Result::ok).find_map(|line| {
                let (event, number) = line.split_once(' ')?;
                let number = number.parse().ok()?;
                match event {
                    "exited" => Some(Exit::Code(number)),
                    "signalled" => Some(Exit::Signal(number)),
                    _ => None,
                }
            });
            sender.send_replace(Some(exit.unwrap_or(Exit::Unknown)));
        });
        Ok(Self { leash, requests: Mutex::new(Some(requests)), exit, pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the process itself, not to its descendants; does nothing once it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = requests.as_mut().context("the leash was let go")?;
        writeln!(requests, "signal {}", signal as i32).context("write to the leash")
    }

    /// `None` while it runs.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// Waits for the end of the process; an error after `limit`. The future does not borrow the leash.
    pub fn exited(&self, limit: Duration) -> impl Future<Output = Result<Exit>> + use<> {
        let mut exit = self.exit.clone();
        let pid = self.pid;
        async move {
            let ended = tokio::time::timeout(limit, exit.wait_for(Option::is_some)).await;
            let ended = ended.with_context(|| format!("process {pid} still runs after {limit:?}"))?;
            Ok(ended.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown))
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The leash ends when all it held is gone; an error means that it is gone already.
        let _ = self.leash.wait();
    }
}

/// Starts a leash in a process group of its own: a Ctrl-C on the terminal ends us, and the pipe ends it.
pub(crate) fn spawn(mut leash: Command) -> Result<(Child, ChildStdin, BufReader<std::process::ChildStdout>)> {
    leash.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = leash.spawn().with_context(|| format!("start {}", leash.get_program().display()))?;
    let requests = child.stdin.take().context("the leash has no standard input")?;
    let events = child.stdout.take().context("the leash has no standard output")?;
    Ok((child, requests, BufReader::new(events)))
}

fn inherit_little(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "JAVA_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// A binary of this workspace: it lies beside our own executable, or one folder up for a test binary.
pub fn sibling(name: impl AsRef<OsStr>) -> Result<PathBuf> {
    let path = folder()?.join(Path::new(name.as_ref()));
    if !path.is_file() {
        bail!("{} is missing: run 'cargo build --workspace' first", path.display());
    }
    Ok(path)
}

fn folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find our own executable")?;
    let folder = own.ancestors().skip(1).find(|folder| folder.file_name() != Some(OsStr::new("deps")));
    Ok(folder.context("our executable has no folder")?.to_owned())
}
