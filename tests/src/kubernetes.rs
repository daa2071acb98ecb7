//! A real Kubernetes control plane on loopback: etcd, kube-apiserver with RBAC and an audit log, and where
//! asked for kube-controller-manager, in a sandbox of its own.
//!
//! There is no node: nothing schedules or runs a pod, and nothing resolves or routes a service. A test that
//! needs pods creates them and writes their status, or has [`crate::Nodes`], whose control plane this is too.
//!
//! Invariants: it is ready when [`Kubernetes::start`] returns; it is gone when it is dropped or the test process
//! has ended, in whatever way; clients are made per call, since they belong to the runtime that made them and
//! each test has its own.

mod access;
mod audit;
pub(crate) mod lan;
mod part;

pub(crate) use access::Access;
pub use access::client;
pub use audit::AuditEvent;
pub use part::Part;

use crate::leash::{Exit, Leash};
use crate::machine::Machine;
use crate::prerequisites;
use crate::rights;
use crate::sandbox::{Output, Sandbox};
use crate::wait;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Client;
use kube::api::{Api, GetParams, ObjectMeta, PostParams, Request};
use lan::Lan;
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// A day, so that no token of a test ends before the test.
const TOKEN_SECONDS: i64 = 24 * 3600;
/// Longest wait for one answer to "are you ready".
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How many lines of a log are shown when a part does not start.
const SHOWN_LINES: usize = 8;

/// What [`Kubernetes::start`] starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct KubernetesOptions {
    /// Also kube-controller-manager: objects whose owner is deleted go, deleted namespaces end, each namespace
    /// gets its `default` ServiceAccount, without which no pod is admitted, and the ClusterRoles `view`, `edit`
    /// and `admin` get their rules. The garbage collector learns of the kind of a new CRD within 40 s, or at
    /// once when this part is killed and started again.
    pub controller_manager: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Kubernetes {
    // Dropped in this order: the processes, then the directory they use.
    parts: Mutex<BTreeMap<Part, Leash>>,
    /// Where it runs, if it has nodes.
    lan: Option<Lan>,
    access: Access,
    kubeconfig: PathBuf,
    /// Of the controllers of tests, once [`crate::crds::install`] has granted them their rights.
    controllers: OnceCell<PathBuf>,
    options: KubernetesOptions,
    sandbox: Sandbox,
}

/// The control plane that all tests share which do no harm to it, with the controller manager. Keep to
/// namespaces of your own ([`Kubernetes::namespace`]), and remember that objects without one are everybody's.
pub async fn shared() -> Result<&'static Kubernetes> {
    // A start that failed is not tried again by every test.
    static SHARED: OnceCell<Result<Kubernetes, String>> = OnceCell::const_new();
    let options = KubernetesOptions { controller_manager: true };
    let kubernetes =
        SHARED.get_or_init(async || Kubernetes::start(options).await.map_err(|e| format!("{e:#}"))).await;
    kubernetes.as_ref().map_err(|error| anyhow::anyhow!("the shared Kubernetes did not start: {error}"))
}

impl Kubernetes {
    /// Starts it and waits until it is ready.
    pub async fn start(options: KubernetesOptions) -> Result<Self> {
        let kubernetes = Self::spawn_in(Sandbox::new()?, None, options)?;
        kubernetes.come_up().await?;
        Ok(kubernetes)
    }

    /// Starts the control plane of nodes, on a machine of its own with a network for them, and does not wait.
    pub(crate) async fn spawn_for_nodes() -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let lan = Lan::new(&sandbox).await?;
        Self::spawn_in(sandbox, Some(lan), KubernetesOptions { controller_manager: true })
    }

    fn spawn_in(sandbox: Sandbox, lan: Option<Lan>, options: KubernetesOptions) -> Result<Self> {
        fs::create_dir(sandbox.directory().join("logs")).context("make the folder of logs")?;
        audit::write_policy(&sandbox)?;
        let access = Access::new(&sandbox, lan.is_some())?;
        let kubeconfig = access.administrator("administrator")?;
        let controllers = OnceCell::new();
        let kubernetes =
            Self { parts: Mutex::default(), lan, access, kubeconfig, controllers, options, sandbox };
        for part in [Part::Etcd, Part::ApiServer] {
            kubernetes.spawn(part)?;
        }
        Ok(kubernetes)
    }

    /// Waits for the API server, and starts and awaits what works with it: kube-controller-manager gives up when
    /// that is not ready within ten seconds.
    pub(crate) async fn come_up(&self) -> Result<()> {
        self.ready().await?;
        for part in self.all_parts().into_iter().filter(|part| !self.parts().contains_key(part)) {
            self.spawn(part)?;
        }
        self.ready().await
    }

    fn all_parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Etcd, Part::ApiServer];
        if self.options.controller_manager {
            parts.push(Part::ControllerManager);
        }
        if self.lan.is_some() {
            parts.push(Part::Scheduler);
        }
        parts
    }

    // === processes ===

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, Leash>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, part: Part) -> Result<()> {
        let mut command = Command::new(prerequisites::kubernetes()?);
        command
            .args(part.arguments(&self.sandbox, &self.access, self.lan.is_some())?)
            .current_dir(self.sandbox.directory());
        let mut parts = self.parts();
        if parts.get(&part).is_some_and(Leash::is_running) {
            bail!("{part} runs already");
        }
        let log = self.log(part);
        let leash = match self.machine() {
            Some(machine) => machine.start(&command, &log, &log),
            None => Leash::start(&command, &log, &log),
        };
        parts.insert(part, leash.with_context(|| format!("start {part}"))?);
        Ok(())
    }

    /// Starts a part again that was killed, at the same address, and waits until all is ready.
    pub async fn start_part(&self, part: Part) -> Result<()> {
        self.spawn(part)?;
        self.ready().await
    }

    /// Sends any signal, such as SIGSTOP for a silent API server and SIGCONT to wake it.
    pub fn signal(&self, part: Part, signal: Signal) -> Result<()> {
        self.parts().get(&part).with_context(|| format!("{part} does not run"))?.signal(signal)
    }

    /// Sends a deadly signal and waits for the end. With a watch open an API server takes a minute to end by
    /// SIGTERM.
    pub async fn kill(&self, part: Part, signal: Signal) -> Result<Exit> {
        let exited = {
            let parts = self.parts();
            let leash = parts.get(&part).with_context(|| format!("{part} does not run"))?;
            leash.signal(signal)?;
            leash.exited(wait::LIMIT)
        };
        let exit = exited.await.with_context(|| format!("wait for the end of {part}"))?;
        self.parts().remove(&part);
        Ok(exit)
    }

    /// Parts that run, with their process ids.
    pub fn pids(&self) -> BTreeMap<Part, u32> {
        let parts = self.parts();
        parts.iter().filter(|(_, leash)| leash.is_running()).map(|(part, l)| (*part, l.pid())).collect()
    }

    // === readiness ===

    async fn ready(&self) -> Result<()> {
        let client = self.client().await?;
        let ready = wait::until("Kubernetes to be ready", wait::LIMIT, async || {
            let ended = self.parts().iter().find_map(|(part, leash)| Some((*part, leash.exit()?)));
            if let Some((part, exit)) = ended {
                return Ok(Some(Err(anyhow::anyhow!("{part} has ended with {exit:?}"))));
            }
            let answer = tokio::time::timeout(ANSWER_LIMIT, self.is_ready(&client)).await;
            Ok(answer.context("no answer in time")??.then_some(Ok(())))
        });
        // Logs last: the cause is what a reader wants first.
        let ready = ready.await.and_then(|ready| ready);
        ready.map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.log_excerpt()))
    }

    async fn is_ready(&self, client: &Client) -> Result<bool> {
        let readyz = Request::new("").get("readyz", &GetParams::default())?;
        client.request_text(readyz).await.context("/readyz")?;
        if self.parts().contains_key(&Part::ControllerManager) {
            return has_default_account(client, "default").await;
        }
        Ok(true)
    }

    // === where things are ===

    /// Where it runs, if it has nodes.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.lan.as_ref().map(|lan| &lan.machine)
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Addresses of its network that end in less than 200 are free for a test's own servers.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// `HOST:PORT` of the API server, which speaks HTTPS alone.
    pub fn address(&self) -> String {
        part::address(&self.sandbox, Part::ApiServer)
    }

    /// A kubeconfig file for a user who may do everything. It names files of the sandbox.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What a part prints, over all its runs.
    pub fn log(&self, part: Part) -> PathBuf {
        self.sandbox.directory().join(format!("logs/{part}.log"))
    }

    /// The last lines of every log that do not say that all is well.
    pub fn log_excerpt(&self) -> String {
        let mut excerpt = format!("logs of Kubernetes in {}:", self.sandbox.directory().display());
        for part in self.all_parts() {
            let text = fs::read(self.log(part)).map(|b| String::from_utf8_lossy(&b).into_owned());
            let text = text.unwrap_or_default();
            let lines: Vec<_> = text.lines().filter(|line| !is_information(line)).collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                excerpt.push_str(&format!("\n  {part}: {}", line.chars().take(300).collect::<String>()));
            }
        }
        excerpt
    }

    /// Every request that was answered, oldest first; see [`AuditEvent`].
    pub fn audit(&self) -> Result<Vec<AuditEvent>> {
        audit::read(&self.sandbox)
    }

    // === use ===

    /// A client of the user who may do everything, for this runtime.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Runs kubectl as the user who may do everything.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(prerequisites::kubernetes()?);
        command.arg("kubectl").arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        // It keeps a cache there.
        command.env("HOME", self.sandbox.directory()).current_dir(self.sandbox.directory());
        self.sandbox.run(&command, wait::LIMIT).await
    }

    /// Applies all objects of a YAML text on the server's side; unknown fields are errors.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let file = self.sandbox.folder("apply")?.join("objects.yaml");
        fs::write(&file, yaml).context("write the objects")?;
        let file = file.to_string_lossy();
        let arguments =
            ["apply", "--server-side", "--force-conflicts=true", "--validate=strict", "--filename", &file];
        self.kubectl(&arguments).await?.success().context("kubectl apply").map(drop)
    }

    /// Creates a namespace whose name starts with `prefix` and that nobody else has; pods can be created in it.
    pub async fn namespace(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<String> {
        let client = self.client().await?;
        // Names that tests make of it have to stay below 63 characters.
        let name = format!("{prefix}-{:.12}", uuid::Uuid::new_v4().simple().to_string());
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.context("create a namespace")?;
        if self.options.controller_manager {
            wait::until("the namespace's default ServiceAccount", wait::LIMIT, async || {
                Ok(has_default_account(&client, &name).await?.then_some(()))
            })
            .await?;
        }
        if self.controllers.initialized() {
            rights::grant_in(self, &name).await?;
        }
        Ok(name)
    }

    /// From now on controllers of tests have the rights of `deploy/base`, in namespaces that are made after this.
    pub(crate) async fn restrict_controllers(&self) -> Result<()> {
        self.controllers.get_or_try_init(|| rights::grant(self)).await.map(drop)
    }

    /// A kubeconfig file for controllers of tests; without [`crate::crds::install`] that of the administrator.
    pub(crate) fn controllers_kubeconfig(&self) -> &Path {
        self.controllers.get().unwrap_or(&self.kubeconfig)
    }

    /// A kubeconfig file with a token of a ServiceAccount, which is created if it is absent. It may do nothing
    /// until a role is bound to it.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client().await?, namespace);
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => {
                created.with_context(|| format!("create ServiceAccount {namespace}/{name}"))?;
            }
        }
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("ask for a token of {namespace}/{name}"))?;
        let token = answer.status.context("the answer has no token")?.token;
        self.access.kubeconfig(
            &format!("{name}-{}", self.sandbox.number()),
            &json!({ "token": token }),
            namespace,
        )
    }
}

async fn has_default_account(client: &Client, namespace: &str) -> Result<bool> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    Ok(accounts.get_opt("default").await?.is_some())
}

/// Whether it is a line of klog at level "info": `I0131 12:00:00.000000 ...`.
fn is_information(line: &str) -> bool {
    line.strip_prefix('I').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}
