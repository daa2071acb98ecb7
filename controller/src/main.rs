//! The door: parses, starts, and turns the result into an exit code: 0 stopped, 1 failed, 2 bad flags.

use std::{
    io::{Read, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use preload_controller::{
    args::{Cli, Command, Inject, Run},
    crd,
    injection::{ManifestError, Manifests},
    run, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const BAD_FLAGS: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crd { document } => {
            finish(crd::print(document).map(|text| print!("{text}")).map_err(Into::into))
        }
        Command::Inject(args) => inject(&args),
        Command::Run(args) => {
            if let Err(error) = telemetry::init(&args.log, args.log_format) {
                eprintln!("error: {error}");
                return ExitCode::from(BAD_FLAGS);
            }
            finish(run_until_signal(*args))
        }
    }
}

/// Standard input to standard output; what was done to standard error.
fn inject(args: &Inject) -> ExitCode {
    if args.injection.sidecar_image.is_none() {
        eprintln!("error: give --sidecar-image, the image that holds /preload-sidecar");
        return ExitCode::from(BAD_FLAGS);
    }
    let mut yaml = String::new();
    let read = std::io::stdin().read_to_string(&mut yaml).context("cannot read YAML from stdin");
    let options = args.injection.options();
    let injected = read
        .and_then(|_| Ok(Manifests::inject(&yaml, &args.namespace, args.injection.host_ports, &options)?));
    let report = match &injected {
        Ok(done) => &done.report[..],
        Err(error) => match error.downcast_ref() {
            Some(ManifestError::Nothing { report }) => &report[..],
            _ => &[],
        },
    };
    for line in report {
        eprintln!("{line}");
    }
    finish(injected.and_then(|done| Ok(std::io::stdout().write_all(done.yaml.as_bytes())?)))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Each sidecar takes a connection; soft limits are often 1,024.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}

fn run_until_signal(args: Run) -> anyhow::Result<()> {
    raise_open_files();
    // One thread does it: thousands of sessions wait, and little is computed. A second one would cost memory
    // (an arena of its own) and save nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = CancellationToken::new();
        let signals = async {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
            stop.cancel();
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
            anyhow::bail!("a second signal: stopped at once")
        };
        tokio::select! {
            done = run::run(args, stop.clone()) => done.map_err(anyhow::Error::from),
            aborted = signals => aborted,
        }
    })
}
