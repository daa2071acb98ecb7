//! Owner of one child process: starts it under the supervisor, reads its output, ends it.
//!
//! The child is gone when [`run`] returns, and soon after `run` is dropped: the supervisor's pipe closes
//! with it. Output is read to its end in bounded memory, whatever the child prints.

use std::{ffi::OsString, io, path::PathBuf, process::Stdio, time::Duration};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{
    lines::Lines,
    strays::{self, Mark},
    supervisor,
};

/// A JVM that got TERM runs its shutdown hooks; Alluxio's shell needs well under a second.
pub const GRACE: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Binary that has the `supervise` subcommand: this one.
    pub supervisor: PathBuf,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// Added to the environment of the sidecar.
    pub environment: Vec<(OsString, OsString)>,
    pub directory: PathBuf,
    /// By which what the program started is found, should its supervisor be killed.
    pub mark: Mark,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself; 128 + n for signal n.
    Code(i32),
    /// The supervisor was killed by this signal: somebody else's doing, or the kernel's for want of memory.
    Killed(i32),
    /// We ended it.
    Stopped,
}

/// The child could not be started or watched. The operator acts: see the message.
#[derive(Debug, Error)]
#[error("cannot run {program}")]
pub struct ProcessError {
    program: String,
    #[source]
    source: io::Error,
}

/// Runs `program` to its end, or ends it when `stop` is cancelled. Each line of stdout and stderr goes to
/// `on_line`, without its line end.
pub async fn run(
    program: &Program,
    mut on_line: impl FnMut(&[u8]),
    stop: &CancellationToken,
) -> Result<Exit, ProcessError> {
    let error = |source| ProcessError { program: program.program.display().to_string(), source };
    let mut child = tokio::process::Command::new(&program.supervisor)
        .arg("supervise")
        .arg("--grace-seconds")
        .arg(GRACE.as_secs().to_string())
        .arg("--")
        .arg(&program.program)
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(k, v)| (k, v)))
        .env(strays::VARIABLE, program.mark.as_str())
        .current_dir(&program.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Away from the terminal's group, so that a Ctrl-C reaches the sidecar only, which stops in order.
        .process_group(0)
        .spawn()
        .map_err(error)?;
    let missing = || error(io::Error::other("a pipe is missing"));
    let mut leash = child.stdin.take();
    let mut out = Lines::new(child.stdout.take().ok_or_else(missing)?);
    let mut err = Lines::new(child.stderr.take().ok_or_else(missing)?);
    let (mut out_open, mut err_open) = (true, true);
    let mut ended = None;
    while out_open || err_open || ended.is_none() {
        tokio::select! {
            line = out.next(), if out_open => out_open = line.map_err(error)?.is_some_and(|l| { on_line(l); true }),
            line = err.next(), if err_open => err_open = line.map_err(error)?.is_some_and(|l| { on_line(l); true }),
            () = stop.cancelled(), if leash.is_some() => leash = None,
            status = child.wait(), if ended.is_none() => {
                ended = Some(status.map_err(error)?);
                // A supervisor ends after its command, unless it was killed. What is left holds our pipes.
                let processes = strays::end(program.mark.clone()).await;
                if processes > 0 {
                    tracing::warn!(processes, "a command was left without its supervisor, and was killed");
                }
            }
        }
    }
    let status = ended.unwrap_or_default();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Ok(match (leash.is_none(), status.code(), signal) {
        (true, ..) => Exit::Stopped,
        (false, Some(code), _) => Exit::Code(code),
        (false, None, signal) => Exit::Killed(signal.unwrap_or(0)),
    })
}

impl Exit {
    /// The program was not there or not executable.
    #[must_use]
    pub fn could_not_start(self) -> bool {
        self == Self::Code(i32::from(supervisor::CANNOT_START))
    }
}
