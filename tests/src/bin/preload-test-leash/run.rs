//! One program and its descendants.
//!
//! Invariants: a descendant never escapes, because orphans come to us (subreaper) and we end only when we have
//! no child left; those of a program on a machine of its own go to that machine, and end with it. A signal is
//! never sent to a process that was reaped already.

use super::say;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use preload_tests::processes;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// What the thread that reads requests and the one that reaps share.
#[derive(Debug, Default)]
struct Held {
    /// The program, until it is reaped.
    program: Option<Pid>,
    /// The pipe from the test process has ended.
    ending: bool,
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<()> {
    let [machine, stdout, stderr, program, arguments @ ..] = arguments.as_slice() else {
        bail!("run needs MACHINE STDOUT STDERR PROGRAM");
    };
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    let machine = (machine != "-").then_some(machine.as_os_str());
    let mut command = command(machine, program, arguments);
    command.stdin(Stdio::null()).stdout(append(Path::new(stdout))?).stderr(append(Path::new(stderr))?);
    let program = match spawn(machine, command) {
        Ok(child) => Pid::from_raw(i32::try_from(child.id())?),
        Err(error) => return say(&format!("failed {}: {error:#}", program.display())),
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

/// On a machine, nsenter becomes the program once it is in its network and sees its files.
fn command(machine: Option<&OsStr>, program: &OsStr, arguments: &[OsString]) -> Command {
    let Some(machine) = machine else {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    };
    let mut command = Command::new("nsenter");
    command
        .arg("--target")
        .arg(machine)
        .args(["--net", "--mount", "--uts", "--"])
        .arg(program)
        .args(arguments);
    command
}

/// Its pid namespace counts for children of the thread that enters it: nsenter would have to fork, and we
/// would signal nsenter instead of the program.
fn spawn(machine: Option<&OsStr>, mut command: Command) -> Result<Child> {
    let Some(machine) = machine else { return Ok(command.spawn()?) };
    let namespace = Path::new("/proc").join(machine).join("ns/pid");
    let spawn = move || -> Result<Child> {
        let namespace = File::open(&namespace).context("find the machine")?;
        setns(namespace, CloneFlags::CLONE_NEWPID).context("enter the machine")?;
        Ok(command.spawn()?)
    };
    std::thread::spawn(spawn).join().map_err(|_| anyhow::anyhow!("the thread that spawns panicked"))?
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
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
