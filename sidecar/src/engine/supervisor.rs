//! The hidden subcommand `supervise`: the leash that a `kill -9` of the sidecar cannot cut.
//!
//! The sidecar starts this small process instead of the command and holds the other end of its stdin. When
//! that pipe ends, on purpose or because the sidecar is dead, the command's whole process group gets TERM,
//! then, after a grace period, KILL. It never outlives its command, and its command never outlives it.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};

/// Exit code when the command could not be started; the shell's "command not found".
pub const CANNOT_START: u8 = 127;

/// Longest file that a command may write, so that it cannot fill the volume that the store is on.
const MAX_FILE: u64 = 64 << 20;

/// Runs `command` to its end and returns the exit code to take over: its own, or 128 + the signal that ended it.
pub fn supervise(command: &[OsString], grace: Duration) -> io::Result<u8> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command given"))?;
    // Logs and lists of failed files; the JVM reports what it cannot write, and goes on.
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, MAX_FILE.min(hard), hard)?;
    // In a group of its own: JVM launchers are shell scripts that may or may not exec.
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let (ended, end) = mpsc::channel::<()>();
    let leash = thread::spawn(move || {
        // Nobody writes: a read returns only when the sidecar closed the pipe or died.
        let _ = io::copy(&mut io::stdin().lock().take(u64::MAX), &mut io::sink());
        let _ = killpg(group, Signal::SIGTERM);
        if end.recv_timeout(grace) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    });
    let status = child.wait()?;
    // What the command left in its group goes with it.
    let _ = killpg(group, Signal::SIGKILL);
    drop(ended);
    if leash.is_finished() {
        let _ = leash.join();
    }
    Ok(code_of(status))
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
