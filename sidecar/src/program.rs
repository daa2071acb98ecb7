//! The whole program but for its clock: parses, starts, and turns the result into an exit code: 0 stopped or
//! healthy, 1 failed, 2 bad flags.
//!
//! A server that was told to stay up has the first only.

use std::{process::ExitCode, time::Duration};

use crate::{
    clock::Clock,
    config::{self, Cli, Command, Healthcheck, Install, Serve, Supervise},
    engine::supervisor,
    healthcheck,
    install::{self, Installed},
    keeper,
    lenient::Lenient,
    metrics::Metrics,
    panics, run, telemetry,
};
use anyhow::Context as _;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const BAD_FLAGS: u8 = 2;

/// What the arguments and the environment of this process say.
#[must_use]
pub fn main(clock: Clock) -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(lossy).collect();
    let environment = |name: &str| std::env::var_os(name).map(lossy);
    let lenient = Lenient::new(&arguments, &environment);
    match Cli::try_parse().map(|cli| cli.command) {
        Err(error) if error.use_stderr() && lenient.stays_up() => explain(&lenient, &one_line(&error)),
        Err(error) => error.exit(),
        Ok(Command::Serve(serve)) => {
            let checked = serve.check().map_err(|error| error.to_string());
            match checked.and_then(|()| telemetry::init(&serve.log, serve.log_format)) {
                Ok(()) => finish(serve_until_signal(*serve, clock)),
                Err(reason) if serve.stay_up => explain(&lenient, &reason),
                Err(reason) => {
                    eprintln!("error: {reason}");
                    ExitCode::from(BAD_FLAGS)
                }
            }
        }
        Ok(Command::Install(install)) => finish(install_here(&install)),
        Ok(Command::Healthcheck(check)) => finish(check_health(&check)),
        Ok(Command::Supervise(supervise)) => supervise_command(&supervise),
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

fn serve_until_signal(config: Serve, clock: Clock) -> anyhow::Result<()> {
    raise_open_files();
    let metrics = Metrics::new();
    panics::install(metrics.clone());
    let (stay_up, admin) = (config.stay_up, config.admin_listen);
    until_signal(async move |shutdown| {
        let served = tokio::spawn(run::run(config, clock, metrics.clone(), shutdown.clone())).await;
        match served.map_err(anyhow::Error::from).and_then(|served| Ok(served?)) {
            Err(error) if stay_up => {
                keeper::explain(admin, &format!("{error:#}"), metrics, shutdown).await;
                Ok(())
            }
            served => served,
        }
    })
}

/// The process stays up without a configuration that it could serve by.
fn explain(lenient: &Lenient<'_>, problem: &str) -> ExitCode {
    let reason = format!("the arguments or environment of the sidecar are not usable: {problem}");
    if let Err(error) = telemetry::init("info", lenient.log_format()) {
        eprintln!("error: {error}");
    }
    let metrics = Metrics::new();
    panics::install(metrics.clone());
    let address = lenient.admin_listen(config::ADMIN_LISTEN);
    finish(until_signal(async move |shutdown| {
        keeper::explain(address, &reason, metrics, shutdown).await;
        Ok(())
    }))
}

/// Runs `work` and cancels its token on SIGTERM or SIGINT.
fn until_signal(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // Two threads: one for the many small things, one so that none waits behind a listing.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
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
            done = work(shutdown) => done,
            aborted = signals => aborted,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// What clap says, without usage and advice.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let problem = text.split("\n\nUsage:").next().unwrap_or_default().trim_start_matches("error:");
    let problem = problem.split("\n\nFor more").next().unwrap_or_default();
    problem.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lossy(text: std::ffi::OsString) -> String {
    text.to_string_lossy().into_owned()
}

fn install_here(install: &Install) -> anyhow::Result<()> {
    let Installed { target, bytes } = install::install(&install.directory)?;
    println!("installed {} ({bytes} bytes)", target.display());
    Ok(())
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
