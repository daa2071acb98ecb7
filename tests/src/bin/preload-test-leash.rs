//! Holds processes and files of the tests on a leash: its standard input is a pipe from the test process, and
//! when that pipe ends, however the test process ended, everything it holds is gone.
//!
//! `run STDOUT STDERR PROGRAM ARGUMENT...` starts one program. Requests come line by line: `signal N`.
//! Events go out line by line: `started PID` or `failed MESSAGE`, later `exited CODE` or `signalled N`.
//!
//! `sandbox` claims a loopback network and a directory, says `claimed NETWORK DIRECTORY`, and removes the
//! directory at the end, once no process names it any more.
//!
//! Invariants: a descendant of the program never escapes, because orphans come to us (subreaper) and we end
//! only when we have no child left. A signal is never sent to a process that was reaped already.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use preload_tests::processes;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Held on the last address of a claimed network for as long as the claim lasts.
const CLAIM_PORT: u16 = 19_990;
/// What we kill is gone within milliseconds; past this the machine is stuck.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|mode| mode.to_str()) {
        Some("run") => run(arguments.collect()),
        Some("sandbox") => sandbox(),
        _ => bail!("usage: preload-test-leash run STDOUT STDERR PROGRAM ARGUMENT... | sandbox"),
    }
}

/// What the thread that reads requests and the one that reaps share.
#[derive(Debug, Default)]
struct Held {
    /// The program, until it is reaped.
    program: Option<Pid>,
    /// The pipe from the test process has ended.
    ending: bool,
}

fn run(arguments: Vec<OsString>) -> Result<()> {
    let [stdout, stderr, program, arguments @ ..] = arguments.as_slice() else {
        bail!("run needs STDOUT STDERR PROGRAM");
    };
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(append(Path::new(stdout))?)
        .stderr(append(Path::new(stderr))?)
        .spawn();
    let program = match started {
        Ok(child) => Pid::from_raw(i32::try_from(child.id())?),
        Err(error) => return say(&format!("failed {}: {error}", program.display())),
    };
    say(&format!("started {program}"))?;
    let held = Arc::new(Mutex::new(Held { program: Some(program), ending: false }));
    let requests = std::thread::spawn({
        let held = Arc::clone(&held);
        move || serve(&held)
    });
    reap(&held)?;
    // No child is left. The test process may not have looked yet: the pipe says when it is done with us.
    requests.join().map_err(|_| anyhow::anyhow!("the thread that reads requests panicked"))
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Writes one event. A test process that has gone does not read it, which is no error.
fn say(event: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{event}").and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(error).context("write an event");
    }
    Ok(())
}

/// Obeys requests until the pipe ends, then kills.
fn serve(held: &Mutex<Held>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let signal = line.strip_prefix("signal ").and_then(|number| number.parse::<i32>().ok());
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(program), Some(signal)) = (held.program, signal)
            && let Ok(signal) = Signal::try_from(signal)
        {
            // It may be a zombie: no error.
            let _ = kill(program, signal);
        }
    }
    held.lock().unwrap_or_else(PoisonError::into_inner).ending = true;
    kill_descendants();
}

fn kill_descendants() {
    for process in processes::descendants(std::process::id()) {
        // Gone meanwhile: no error.
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
    }
}

/// Reaps until no child is left. A process that was forked while we killed becomes our child when its parent
/// dies, so that another look after each death finds it.
fn reap(held: &Mutex<Held>) -> Result<()> {
    loop {
        // Wait without reaping first: the pid stays ours until nobody can signal it any more.
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("wait for a child"),
        }
        let mut guard = held.lock().unwrap_or_else(PoisonError::into_inner);
        let status = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)).context("reap a child")?;
        let event = match status {
            WaitStatus::Exited(pid, code) if guard.program == Some(pid) => Some(format!("exited {code}")),
            WaitStatus::Signaled(pid, signal, _) if guard.program == Some(pid) => {
                Some(format!("signalled {}", signal as i32))
            }
            _ => None,
        };
        if event.is_some() {
            guard.program = None;
        }
        let ending = guard.ending;
        drop(guard);
        if let Some(event) = event {
            say(&event)?;
        }
        if ending {
            kill_descendants();
        }
    }
}

fn sandbox() -> Result<()> {
    let (network, claim) = claim_network()?;
    let directory = tempfile::Builder::new().prefix("preload-").tempdir().context("make a directory")?.keep();
    say(&format!("claimed {network} {}", directory.display()))?;
    std::io::stdin().lock().read_to_end(&mut Vec::new()).context("read standard input")?;
    let limit = Instant::now() + REMOVAL_LIMIT;
    while !processes::naming(&directory).is_empty() && Instant::now() < limit {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    if std::env::var_os("PRELOAD_TESTS_KEEP").is_some() {
        eprintln!("kept {}", directory.display());
    } else {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    drop(claim);
    Ok(())
}

/// A free 127.x.y, starting at a place that depends on our pid so that two runs seldom meet. The low
/// networks stay free for people.
fn claim_network() -> Result<(String, TcpListener)> {
    const FIRST: u32 = 64 << 8;
    const COUNT: u32 = (250 - 64) << 8;
    for step in 0..COUNT {
        let number = FIRST + (std::process::id().wrapping_mul(613) + step) % COUNT;
        let network = format!("127.{}.{}", number >> 8, number & 255);
        match TcpListener::bind(format!("{network}.254:{CLAIM_PORT}")) {
            Ok(claim) => return Ok((network, claim)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context(format!("bind {network}.254")),
        }
    }
    bail!("every loopback network is taken")
}
