//! The real Alluxio in pods: the example of `deploy/overlays/standalone`, as users apply it, with a directory of
//! the sandbox as its under file system.
//!
//! Invariants: two workers and their job workers have registered when [`AlluxioPods::start`] returns; a cluster
//! has one at most, since the example names its namespace.

use super::Nodes;
use crate::data::Data;
use crate::http;
use crate::sandbox::Output;
use crate::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the example is.
pub const NAMESPACE: &str = "alluxio";
pub const MASTER: &str = "alluxio-master-0";
/// How many the example has.
const WORKERS: usize = 2;
const WEB_PORT: u16 = 19_999;
/// Seven JVMs have started by then, also when two cores do much else.
const START_LIMIT: Duration = Duration::from_secs(300);
/// In the order in which they are applied.
const FILES: [&str; 5] = ["namespace", "config", "ufs", "master", "worker"];
/// What the example says, and what is added to it: it waits less for a standby master and for more workers,
/// neither of which there is.
pub(super) const PROPERTY: &str = "-Dalluxio.master.metastore=HEAP\n";
pub(super) const QUICK: &str = "-Dalluxio.master.metastore=HEAP\n    \
                     -Dalluxio.master.journal.tailer.shutdown.quiet.wait.time=0sec\n    \
                     -Dalluxio.master.journal.tailer.sleep.time=200ms\n    \
                     -Dalluxio.master.worker.connect.wait.time=1sec\n";

/// See the module.
#[derive(Debug)]
pub struct AlluxioPods<'a> {
    nodes: &'a Nodes,
    ufs: PathBuf,
}

impl<'a> AlluxioPods<'a> {
    /// Applies the example and waits until it is of use.
    pub async fn start(nodes: &'a Nodes) -> Result<Self> {
        let alluxio = Self::apply(nodes).await?;
        let ready = alluxio.ready().await;
        if let Err(error) = ready {
            anyhow::bail!("{error:#}\n{}", alluxio.describe().await);
        }
        Ok(alluxio)
    }

    /// Applies the example and does not wait.
    pub async fn apply(nodes: &'a Nodes) -> Result<Self> {
        let kubernetes = nodes.kubernetes();
        let ufs = kubernetes.sandbox().directory().join("ufs");
        fs::create_dir_all(&ufs).context("make the under file system")?;
        for name in FILES {
            let yaml = manifest(&format!("alluxio-{name}.yaml"))?;
            let yaml = match name {
                "ufs" => replaced(&yaml, "/mnt/alluxio-ufs", &ufs.to_string_lossy())?,
                "config" => replaced(&yaml, PROPERTY, QUICK)?,
                _ => yaml,
            };
            kubernetes.apply(&yaml).await.with_context(|| format!("apply alluxio-{name}.yaml"))?;
        }
        Ok(Self { nodes, ufs })
    }

    /// What [`super::Installation`] has applied.
    pub(super) fn applied(nodes: &'a Nodes, ufs: PathBuf) -> Self {
        Self { nodes, ufs }
    }

    /// Waits until every pod is Ready and every worker has registered.
    pub async fn ready(&self) -> Result<()> {
        wait::until("Alluxio's pods to be of use", START_LIMIT, async || {
            let (workers, job_workers) = (self.live_workers().await?, self.job_workers().await?);
            ensure!(workers == WORKERS, "{workers} workers have registered");
            ensure!(job_workers >= WORKERS, "{job_workers} job workers have registered");
            Ok(Some(()))
        })
        .await?;
        for set in ["alluxio-master", "alluxio-worker"] {
            let arguments =
                ["rollout", "status", "--timeout=60s", "--namespace", NAMESPACE, "statefulset", set];
            self.nodes.kubernetes().kubectl(&arguments).await?.success().context("wait for the pods")?;
        }
        Ok(())
    }

    /// Workers that the master counts as alive.
    pub async fn live_workers(&self) -> Result<usize> {
        let address = format!("{}:{WEB_PORT}", self.pod_address(MASTER).await?);
        let forward = self.nodes.forward(&address)?;
        let page = http::get_json(forward.address(), "/api/v1/master/webui_workers").await?;
        let workers = page["normalNodeInfos"].as_array().context("the page lists no workers")?;
        Ok(workers.len())
    }

    /// The job master has no such page: its log tells, of all that ever came.
    async fn job_workers(&self) -> Result<usize> {
        let arguments = ["logs", "--namespace", NAMESPACE, MASTER, "--container", "alluxio-job-master"];
        let log = self.nodes.kubernetes().kubectl(&arguments).await?.success()?;
        Ok(log.lines().filter(|line| line.contains("registerWorker()")).count())
    }

    /// The address of a pod, for [`Nodes::forward`].
    pub async fn pod_address(&self, pod: &str) -> Result<String> {
        let pods = Api::<Pod>::namespaced(self.nodes.kubernetes().client().await?, NAMESPACE);
        let found = pods.get(pod).await.with_context(|| format!("get pod {pod}"))?;
        found.status.and_then(|status| status.pod_ip).with_context(|| format!("{pod} has no address"))
    }

    /// A fresh directory in the under file system.
    pub fn data(&self, name: &str) -> Result<Data> {
        let name = format!("{name}-{}", self.nodes.kubernetes().sandbox().number());
        Data::create(self.ufs.join(&name), format!("/{name}"))
    }

    /// A directory of this very name, for manifests that say it.
    pub fn data_at(&self, name: &str) -> Result<Data> {
        Data::create(self.ufs.join(name), format!("/{name}"))
    }

    /// Directory of the under file system that is mounted at `/`, on every node.
    pub fn ufs(&self) -> &Path {
        &self.ufs
    }

    /// Runs the real command line in the master, such as `["fs", "ls", "-R", "/"]`.
    pub async fn alluxio(&self, arguments: &[&str]) -> Result<Output> {
        let exec =
            ["exec", "--namespace", NAMESPACE, MASTER, "--container", "alluxio-master", "--", "alluxio"];
        self.nodes.kubernetes().kubectl(&[&exec[..], arguments].concat()).await
    }

    /// What there is, what happened to it, and what its processes said at last.
    pub async fn describe(&self) -> String {
        let mut text = String::new();
        let kubernetes = self.nodes.kubernetes();
        let namespace = ["--namespace", NAMESPACE];
        let logs = ["logs", "--selector", "app=alluxio", "--all-containers", "--prefix", "--tail", "5"];
        for arguments in [&["get", "pods", "--output", "wide"][..], &["events"], &logs] {
            match kubernetes.kubectl(&[arguments, &namespace].concat()).await {
                Ok(output) => text.push_str(&format!("{}{}\n", output.stdout, output.stderr)),
                Err(error) => text.push_str(&format!("kubectl {arguments:?}: {error:#}\n")),
            }
        }
        text
    }
}

/// A file of the example.
pub(super) fn manifest(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/overlays/standalone").join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

pub(super) fn replaced(yaml: &str, old: &str, new: &str) -> Result<String> {
    ensure!(yaml.contains(old), "the example says {old:?} no more");
    Ok(yaml.replace(old, new))
}
