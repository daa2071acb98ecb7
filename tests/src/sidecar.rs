//! The real `preload-sidecar` binary as a process: started, killed and started again on the same state
//! directory and the same ports.

use crate::certificates::Identity;
use crate::cluster::Cluster;
use crate::leash::{self, Exit, Leash};
use crate::processes::{self, Process};
use crate::sandbox::Sandbox;
use crate::wait;
use crate::{complaints, http};
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{GetLoadRequest, Load, LoadSpec, StartLoadRequest};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use tonic::transport::{Channel, Endpoint};

/// File name of the binary.
const PROGRAM: &str = "preload-sidecar";
/// How many lines of a log are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// What a sidecar is started with.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    sandbox: &'a Sandbox,
    cluster: Option<&'a Cluster>,
    program: &'static str,
    launcher: PathBuf,
    master: String,
    job_master: String,
    state_directory: Option<PathBuf>,
    listen: Option<String>,
    admin: Option<String>,
    enter: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    quiet: bool,
}

impl<'a> Setup<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            sandbox: cluster.sandbox(),
            cluster: Some(cluster),
            program: PROGRAM,
            launcher: cluster.launcher().to_owned(),
            master: cluster.master_address(),
            job_master: cluster.job_master_address(),
            state_directory: None,
            listen: None,
            admin: None,
            enter: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            quiet: false,
        }
    }

    /// Without an Alluxio: nothing listens where it looks for one.
    pub fn alone(sandbox: &'a Sandbox) -> Self {
        Self {
            sandbox,
            cluster: None,
            program: PROGRAM,
            launcher: sandbox.directory().join("no-launcher"),
            master: sandbox.free_address(),
            job_master: sandbox.free_address(),
            state_directory: None,
            listen: None,
            admin: None,
            enter: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            quiet: false,
        }
    }

    /// The Alluxio of a cluster; everything else stays in the sandbox.
    #[must_use]
    pub fn with_alluxio(mut self, cluster: &'a Cluster) -> Self {
        self.launcher = cluster.launcher().to_owned();
        self.master = cluster.master_address();
        self.job_master = cluster.job_master_address();
        self
    }

    /// Another binary that does what the sidecar does.
    #[must_use]
    pub fn program(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    /// Another way to the masters than the straight one.
    #[must_use]
    pub fn masters(mut self, master: impl Into<String>, job_master: impl Into<String>) -> Self {
        (self.master, self.job_master) = (master.into(), job_master.into());
        self
    }

    /// Adds a command line argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Serves TLS with this certificate.
    #[must_use]
    pub fn tls(self, identity: &Identity) -> Self {
        self.argument("--tls-cert")
            .argument(&identity.certificate)
            .argument("--tls-key")
            .argument(&identity.key)
    }

    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Another launcher than the cluster's: one that is missing or misbehaves.
    #[must_use]
    pub fn launcher(mut self, launcher: impl Into<PathBuf>) -> Self {
        self.launcher = launcher.into();
        self
    }

    /// Prints nothing when it is dropped.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// A state directory on a file system of the test's choice.
    #[must_use]
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_directory = Some(directory.into());
        self
    }

    /// An address that the test knows before, instead of a free one.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    #[must_use]
    pub fn admin_listen(mut self, address: impl Into<String>) -> Self {
        self.admin = Some(address.into());
        self
    }

    /// Started by another program, which becomes it.
    #[must_use]
    pub fn entering(mut self, program: Vec<OsString>) -> Self {
        self.enter = program;
        self
    }

    /// As what is injected into a master's pod.
    #[must_use]
    pub fn stay_up(self) -> Self {
        self.environment("PRELOAD_STAY_UP", "true")
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Result<Sidecar<'a>> {
        let mut sidecar = self.spawn()?;
        sidecar.ready().await?;
        Ok(sidecar)
    }

    /// Starts it and does not wait: for one that cannot become ready.
    pub fn spawn(self) -> Result<Sidecar<'a>> {
        let folder = self.sandbox.folder("sidecar")?;
        let state_directory = self.state_directory.clone().unwrap_or_else(|| folder.join("state"));
        let log = folder.join("log");
        let mut sidecar = Sidecar {
            listen: self.listen.clone().unwrap_or_else(|| self.sandbox.free_address()),
            admin: self.admin.clone().unwrap_or_else(|| self.sandbox.free_address()),
            setup: self,
            state_directory,
            log,
            leash: None,
        };
        sidecar.spawn()?;
        Ok(sidecar)
    }
}

/// A sidecar that runs, or ran. Dropping it kills it and everything it started, and prints the end of its log,
/// which `cargo test` shows when the test has failed.
#[derive(Debug)]
pub struct Sidecar<'a> {
    setup: Setup<'a>,
    listen: String,
    admin: String,
    state_directory: PathBuf,
    log: PathBuf,
    leash: Option<Leash>,
}

impl<'a> Sidecar<'a> {
    /// `Setup::new(cluster)`, with more arguments, started.
    pub async fn start<S: AsRef<OsStr>>(cluster: &'a Cluster, arguments: &[S]) -> Result<Self> {
        let setup =
            arguments.iter().fold(Setup::new(cluster), |setup, argument| setup.argument(argument.as_ref()));
        setup.start().await
    }

    fn spawn(&mut self) -> Result<()> {
        let mut program = self.setup.enter.clone();
        program.push(leash::sibling(self.setup.program)?.into());
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).arg("serve");
        command.arg("--listen").arg(&self.listen).arg("--admin-listen").arg(&self.admin);
        command.arg("--state-dir").arg(&self.state_directory);
        command.arg("--alluxio").arg(&self.setup.launcher);
        command.arg("--alluxio-master").arg(&self.setup.master);
        command.arg("--alluxio-job-master").arg(&self.setup.job_master);
        command.args(&self.setup.arguments).env("RUST_BACKTRACE", "1");
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.setup.sandbox.directory());
        self.leash = Some(Leash::start(&command, &self.log, &self.log).context("start preload-sidecar")?);
        Ok(())
    }

    /// Waits for `/readyz`.
    pub async fn ready(&mut self) -> Result<()> {
        let ready = wait::until("the sidecar to be ready", wait::LIMIT, async || {
            if let Some(exit) = self.leash.as_ref().and_then(Leash::exit) {
                return Ok(Some(Err(exit)));
            }
            let (status, body) = http::get(&self.admin, "/readyz").await?;
            if status != 200 {
                bail!("/readyz says {status}: {body}");
            }
            Ok(Some(Ok(())))
        });
        ready.await?.map_err(|exit| anyhow::anyhow!("the sidecar ended with {exit:?}: {}", self.log_end()))
    }

    // === process ===

    fn leash(&self) -> Result<&Leash> {
        self.leash.as_ref().context("the sidecar was not started")
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.leash()?.pid())
    }

    /// Its supervisors, and what they run.
    pub fn descendants(&self) -> Result<Vec<Process>> {
        Ok(processes::descendants(self.pid()?))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.leash()?.signal(signal)
    }

    /// SIGKILL to the sidecar alone. What it started has to end by itself: nobody here kills it before the
    /// sidecar is dropped, so [`Cluster::command_lines`] tells whether it did.
    pub async fn kill9(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await.map(drop)
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&mut self) -> Result<Exit> {
        self.end(Signal::SIGTERM).await
    }

    async fn end(&mut self, signal: Signal) -> Result<Exit> {
        let leash = self.leash()?;
        leash.signal(signal)?;
        leash.exited(wait::LIMIT).await.context("wait for the end of the sidecar")
    }

    /// Starts it again after it has ended, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        if self.leash()?.is_running() {
            bail!("the sidecar still runs");
        }
        self.spawn()?;
        self.ready().await
    }

    // === where things are ===

    /// `HOST:PORT` of the service.
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// `HOST:PORT` of `/livez`, `/readyz` and `/metrics`.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    pub fn state_directory(&self) -> &Path {
        &self.state_directory
    }

    /// What it has printed so far, over all its runs.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of it.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!("log of the sidecar:\n{}", lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"))
    }

    /// Fails if it logged an error or a panic.
    pub fn assert_no_errors(&self) -> Result<()> {
        complaints::assert_none("sidecar", &self.log(), complaints::ERRORS)
    }

    /// Fails if it logged a warning, an error or a panic: where nothing was wrong, it has nothing to warn of.
    pub fn assert_quiet(&self) -> Result<()> {
        complaints::assert_none("sidecar", &self.log(), complaints::WARNINGS)
    }

    // === calls ===

    /// A client on a connection of its own, which connects again after a restart.
    pub fn client(&self) -> Result<PreloadServiceClient<Channel>> {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.listen)).context("make an endpoint")?;
        Ok(PreloadServiceClient::new(endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy()))
    }

    /// StartLoad.
    pub async fn start_load(&self, request: StartLoadRequest) -> Result<Load> {
        Ok(self.client()?.start_load(request).await.context("StartLoad")?.into_inner())
    }

    /// GetLoad.
    pub async fn get_load(&self, id: &str) -> Result<Load> {
        let request = GetLoadRequest { load_id: id.to_owned() };
        Ok(self.client()?.get_load(request).await.with_context(|| format!("GetLoad {id}"))?.into_inner())
    }

    /// The load once it has ended, in whatever state.
    pub async fn finished(&self, id: &str) -> Result<Load> {
        self.reaches(id, |load| is_terminal(load.state(), false)).await
    }

    /// The load once it is in `state`; fails when it ends in another.
    pub async fn in_state(&self, id: &str, state: State) -> Result<Load> {
        let load = self.reaches(id, |load| load.state() == state || is_terminal(load.state(), false)).await?;
        if load.state() != state {
            bail!("load {id} is {:?} ({:?}: {}), not {state:?}", load.state(), load.reason(), load.message);
        }
        Ok(load)
    }

    /// The load once `condition` holds.
    pub async fn reaches(&self, id: &str, condition: impl Fn(&Load) -> bool) -> Result<Load> {
        wait::until(&format!("load {id}"), wait::LIMIT, async || {
            let load = self.get_load(id).await?;
            if condition(&load) {
                return Ok(Some(load));
            }
            bail!("it is {:?} ({:?}: {}) {:?}", load.state(), load.reason(), load.message, load.progress);
        })
        .await
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        if self.setup.quiet {
            return;
        }
        eprintln!("{}", self.log_end());
        if let Some(cluster) = self.setup.cluster {
            eprintln!("{}", cluster.log_excerpt());
        }
    }
}

/// A request with defaults for all but the path and the replicas.
pub fn load(id: &str, path: &str, replicas: u32) -> StartLoadRequest {
    let spec = LoadSpec { path: path.to_owned(), replicas: Some(replicas), ..LoadSpec::default() };
    StartLoadRequest { load_id: id.to_owned(), spec: Some(spec) }
}

/// When the load entered this state last, by the sidecar's clock.
pub fn entered(load: &Load, state: State) -> Option<SystemTime> {
    let change = load.transitions.iter().rfind(|change| change.to() == state)?;
    SystemTime::try_from(change.time?).ok()
}
