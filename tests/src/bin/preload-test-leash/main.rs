//! Holds processes and files of the tests on a leash: its standard input is a pipe from the test process, and
//! when that pipe ends, however the test process ended, everything it holds is gone.
//!
//! `run MACHINE STDOUT STDERR PROGRAM ARGUMENT...` starts one program, on the machine whose first process is
//! MACHINE, or on this one if it is `-`. Requests come line by line: `signal N`.
//! Events go out line by line: `started PID` or `failed MESSAGE`, later `exited CODE` or `signalled N`.
//!
//! `sandbox` claims a loopback network and a directory, says `claimed NETWORK DIRECTORY`, and removes the
//! directory at the end, once no process names it any more.
//!
//! `machine NAME DIRECTORY` makes network, mount and pid namespaces and control groups, says `started PID`, and
//! ends all that runs in them. `init DIRECTORY` is their first process.
//!
//! `forward MACHINE ADDRESS MACHINE ADDRESS` takes TCP connections in the first network to the second.

mod forward;
mod machine;
mod run;
mod sandbox;

use anyhow::{Context, Result, bail};
use std::io::Write;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next();
    let arguments: Vec<_> = arguments.collect();
    match mode.as_deref().and_then(|mode| mode.to_str()) {
        Some("run") => run::run(arguments),
        Some("sandbox") => sandbox::sandbox(),
        Some("machine") => machine::machine(&arguments),
        Some("init") => machine::init(),
        Some("forward") => forward::forward(&arguments),
        _ => bail!("usage: preload-test-leash run|sandbox|machine|init|forward ARGUMENT..."),
    }
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
