//! The real `preload-controller` binary as a process, for one namespace.

use crate::kubernetes::Kubernetes;
use crate::leash::{self, Exit, Leash};
use crate::wait;
use crate::{complaints, http};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many lines of its log are shown when a test fails.
const SHOWN_LINES: usize = 40;

/// What a controller is started with.
#[derive(Debug, Clone)]
pub struct ControllerSetup {
    kubeconfig: PathBuf,
    namespace: Option<String>,
    lease_namespace: String,
    arguments: Vec<OsString>,
    /// The controller makes the credentials of sidecars.
    managed: bool,
    environment: Vec<(OsString, OsString)>,
    webhook: bool,
    quiet: bool,
}

impl ControllerSetup {
    /// With the rights that `deploy/base` grants, serving `namespace` alone, with its lease there.
    pub fn new(kubernetes: &Kubernetes, namespace: &str) -> Self {
        Self {
            kubeconfig: kubernetes.controllers_kubeconfig().to_owned(),
            namespace: Some(namespace.to_owned()),
            lease_namespace: namespace.to_owned(),
            arguments: Vec::new(),
            managed: false,
            environment: Vec::new(),
            webhook: false,
            quiet: false,
        }
    }

    /// Another user, or another way to the API server.
    #[must_use]
    pub fn kubeconfig(mut self, kubeconfig: &Path) -> Self {
        kubeconfig.clone_into(&mut self.kubeconfig);
        self
    }

    /// Serves all namespaces that are opted in.
    #[must_use]
    pub fn all_namespaces(mut self) -> Self {
        self.namespace = None;
        self
    }

    /// Prints nothing when it is dropped.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// With the credentials that it makes and writes itself; without this and without files of the test's own,
    /// sidecars are spoken to in plain text.
    #[must_use]
    pub fn managed_credentials(mut self) -> Self {
        self.managed = true;
        self
    }

    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With the admission webhook, which is off otherwise; see [`Controller::webhook_address`].
    #[must_use]
    pub fn webhook(mut self) -> Self {
        self.webhook = true;
        self
    }

    /// Starts it and waits until it leads.
    pub async fn start(self, kubernetes: &Kubernetes) -> Result<Controller<'_>> {
        let mut controller = self.spawn(kubernetes)?;
        controller.leading().await?;
        Ok(controller)
    }

    /// Starts it and does not wait.
    pub fn spawn(mut self, kubernetes: &Kubernetes) -> Result<Controller<'_>> {
        // In a namespace of the test's own lies a root, and the registration has a name of its own: the rights of
        // `deploy/base` are for the one of each that a cluster has.
        if (self.managed || self.webhook) && self.kubeconfig == kubernetes.controllers_kubeconfig() {
            kubernetes.kubeconfig().clone_into(&mut self.kubeconfig);
        }
        let sandbox = kubernetes.sandbox();
        let log = sandbox.folder("controller")?.join("log");
        let admin = sandbox.free_address();
        let webhook = self.webhook.then(|| sandbox.free_address());
        let mut controller = Controller { kubernetes, setup: self, admin, webhook, log, leash: None };
        controller.spawn()?;
        Ok(controller)
    }
}

/// A controller that runs, or ran. Dropping it kills it, and prints the end of its log, which `cargo test`
/// shows when the test has failed.
#[derive(Debug)]
pub struct Controller<'a> {
    kubernetes: &'a Kubernetes,
    setup: ControllerSetup,
    admin: String,
    webhook: Option<String>,
    log: PathBuf,
    leash: Option<Leash>,
}

impl<'a> Controller<'a> {
    /// `ControllerSetup::new`, started.
    pub async fn start(kubernetes: &'a Kubernetes, namespace: &str) -> Result<Self> {
        ControllerSetup::new(kubernetes, namespace).start(kubernetes).await
    }

    fn spawn(&mut self) -> Result<()> {
        let mut command = Command::new(leash::sibling("preload-controller")?);
        command.arg("run").arg("--kubeconfig").arg(&self.setup.kubeconfig);
        command.arg("--admin-listen").arg(&self.admin);
        command.arg("--webhook-listen").arg(self.webhook.as_deref().unwrap_or("off"));
        command.arg("--lease-namespace").arg(&self.setup.lease_namespace);
        if !self.setup.arguments.iter().any(|a| a.to_string_lossy().starts_with("--lease-duration")) {
            // Short, so that a replica that was killed is replaced soon.
            command.arg("--lease-duration=3s");
        }
        let files = ["--tls-ca", "--token-file"];
        if !self.setup.managed && !self.setup.arguments.iter().any(|a| files.iter().any(|f| a == f)) {
            command.arg("--allow-insecure");
        }
        if let Some(namespace) = &self.setup.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.args(&self.setup.arguments).env("RUST_BACKTRACE", "1");
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.kubernetes.sandbox().directory());
        self.leash = Some(Leash::start(&command, &self.log, &self.log).context("start preload-controller")?);
        Ok(())
    }

    /// Waits until it leads, and its caches are full.
    pub async fn leading(&mut self) -> Result<()> {
        self.says("ok: leading").await
    }

    /// Waits until `/readyz` says so.
    pub async fn says(&mut self, wanted: &str) -> Result<()> {
        let what = format!("the controller to say {wanted:?}");
        let ready = wait::until(&what, wait::LIMIT, async || {
            if let Some(exit) = self.leash.as_ref().and_then(Leash::exit) {
                return Ok(Some(Err(exit)));
            }
            let (_, body) = http::get(&self.admin, "/readyz").await?;
            if !body.contains(wanted) {
                bail!("/readyz says {body}");
            }
            Ok(Some(Ok(())))
        });
        ready.await?.map_err(|exit| anyhow::anyhow!("the controller ended with {exit:?}: {}", self.log_end()))
    }

    fn leash(&self) -> Result<&Leash> {
        self.leash.as_ref().context("the controller was not started")
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.leash()?.pid())
    }

    pub fn is_running(&self) -> bool {
        self.leash.as_ref().is_some_and(Leash::is_running)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.leash()?.signal(signal)
    }

    /// Sends a signal that ends it, and waits for the end.
    pub async fn end(&mut self, signal: Signal) -> Result<Exit> {
        let leash = self.leash()?;
        leash.signal(signal)?;
        leash.exited(wait::LIMIT).await.context("wait for the end of the controller")
    }

    /// Waits for an end that somebody else brings about.
    pub async fn ended(&mut self) -> Result<Exit> {
        self.leash()?.exited(wait::LIMIT).await.context("wait for the end of the controller")
    }

    /// Starts it again after it has ended, and waits until it leads.
    pub async fn restart(&mut self) -> Result<()> {
        self.respawn()?;
        self.leading().await
    }

    /// Starts it again after it has ended, and does not wait.
    pub fn respawn(&mut self) -> Result<()> {
        if self.leash()?.is_running() {
            bail!("the controller still runs");
        }
        self.spawn()
    }

    /// Another way to the API server from its next start on.
    pub fn set_kubeconfig(&mut self, kubeconfig: &Path) {
        kubeconfig.clone_into(&mut self.setup.kubeconfig);
    }

    /// `HOST:PORT` of `/livez`, `/readyz` and `/metrics`.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// `HOST:PORT` of its admission webhook, which the setup must have asked for.
    pub fn webhook_address(&self) -> Result<&str> {
        self.webhook.as_deref().context("the controller was started without its webhook")
    }

    /// What it has printed so far, over all its runs.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of it.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!("log of the controller:\n{}", lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"))
    }

    /// Fails if it logged an error or a panic.
    pub fn assert_no_errors(&self) -> Result<()> {
        complaints::assert_none("controller", &self.log(), complaints::ERRORS)
    }

    /// Fails if it logged a warning, an error or a panic.
    pub fn assert_quiet(&self) -> Result<()> {
        complaints::assert_none("controller", &self.log(), complaints::WARNINGS)
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        if !self.setup.quiet {
            eprintln!("{}", self.log_end());
        }
    }
}
