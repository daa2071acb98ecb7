//! A machine of its own: network, mount, pid and name namespaces, and a control group.
//!
//! Invariants: its first process ends with the pipe from us, hence also when we are killed, and the kernel ends
//! with it everything that runs in the pid namespace; mounts are private to the machine.

use super::say;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use preload_tests::cgroup::{self, Cgroup};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// What a first process is called: not as a leash, so that the directory stays for as long as it runs.
const INIT: &str = "preload-test-init";

pub(super) fn machine(arguments: &[OsString]) -> Result<()> {
    let [name, directory] = arguments else { bail!("machine needs NAME DIRECTORY") };
    let name = name.to_str().context("the name is not UTF-8")?;
    cgroup::sweep();
    let group = Cgroup::claim(name)?;
    let program = std::env::current_exe().context("find our own executable")?;
    let namespaces = [
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWUTS,
    ];
    unshare(namespaces.into_iter().collect()).context("make namespaces, which only root may")?;
    let mut init = Command::new(program);
    init.arg0(INIT).arg("init").arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut init = init.spawn().context("start the first process")?;
    let mut line = String::new();
    let events = init.stdout.take().context("the first process has no standard output")?;
    BufReader::new(events).read_line(&mut line).context("read from the first process")?;
    if line != "ready\n" {
        bail!("the first process of the machine ended at once");
    }
    say(&format!("started {}", init.id()))?;
    std::io::stdin().lock().read_to_end(&mut Vec::new()).context("read standard input")?;
    init.kill().context("end the machine")?;
    // The kernel lets us reap it once all its processes are gone.
    init.wait().context("wait for the end of the machine")?;
    group.remove()
}

/// Waits for its orphans, until its standard input ends.
pub(super) fn init() -> Result<()> {
    // Before there is another thread: blocked in all of them, it waits for us.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block SIGCHLD")?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("part the mounts")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing).context("mount /proc")?;
    // Containers are to see what is mounted later.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SHARED, nothing)
        .context("share the mounts")?;
    say("ready")?;
    std::thread::spawn(|| {
        // Either way our parent is gone.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        signals.wait().context("wait for SIGCHLD")?;
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            && status != WaitStatus::StillAlive
        {}
    }
}
