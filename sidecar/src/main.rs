//! Parses, starts, and turns the result into an exit code: 0 stopped or healthy, 1 failed, 2 bad flags.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use preload_sidecar::{
    config::{Cli, Command, Healthcheck, Serve, Supervise},
    engine::supervisor,
    healthcheck, run, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const BAD_FLAGS: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => {
            if let Err(error) = serve.check() {
                eprintln!("error: {error}");
                return ExitCode::from(BAD_FLAGS);
            }
            if let Err(error) = telemetry::init(&serve.log, serve.log_format) {
                eprintln!("error: {error}");
                return ExitCode::from(BAD_FLAGS);
            }
            finish(serve_until_signal(*serve))
        }
        Command::Healthcheck(check) => finish(check_health(&check)),
        Command::Supervise(supervise) => supervise_command(&supervise),
    }
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

fn serve_until_signal(config: Serve) -> anyhow::Result<()> {
    raise_open_files();
    // Two threads: one for the many small things, one so that none waits behind a listing.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let signals = async {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
            stop.cancel();
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
            anyhow::bail!("a second signal: stopped at once")
        };
        tokio::select! {
            done = run::run(config, shutdown) => done.map_err(anyhow::Error::from),
            aborted = signals => aborted,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Ten thousand watchers with a connection each need as many descriptors; soft limits are often 1,024.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}

fn check_health(check: &Healthcheck) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(healthcheck::ask(check.admin, check.live));
    println!("{}", answer.with_context(|| format!("sidecar at {}", check.admin))?);
    Ok(())
}

fn supervise_command(supervise: &Supervise) -> ExitCode {
    match supervisor::supervise(&supervise.command, Duration::from_secs(supervise.grace_seconds)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let program =
                supervise.command.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
            println!("cannot start {program}: {error}");
            ExitCode::from(supervisor::CANNOT_START)
        }
    }
}
