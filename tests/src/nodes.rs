//! A real Kubernetes cluster with real nodes, on this machine: every node has network, mount and pid namespaces
//! of its own, with containerd, kubelet and kube-proxy; the control plane is a [`Kubernetes`] on such a machine
//! too, with a network for the nodes and CoreDNS.
//!
//! No image comes from a registry: pods name those of [`catalogue`], or what a test imports, and their
//! `imagePullPolicy` is not `Always`. Needs root.
//!
//! Invariants: all nodes are Ready when [`Nodes::start`] returns; all is gone when it is dropped or the test
//! process has ended, in whatever way: processes, mounts, control groups and files. Addresses are the same in
//! every run, since their networks are apart.

pub mod alluxio;
pub mod catalogue;
pub mod container;
pub mod image;
pub mod installation;
pub mod node;
pub mod port_forward;

mod containerd;
mod dns;
mod jre;
mod store;

pub use alluxio::AlluxioPods;
pub use container::{Container, Memory};
pub use image::Image;
pub use installation::Installation;
pub use node::{Node, NodePart};
pub use port_forward::PortForward;

use crate::cgroup;
use crate::forward::Forward;
use crate::kubernetes::Kubernetes;
use crate::leash::Leash;
use crate::processes;
use crate::sandbox::{Output, Sandbox};
use crate::wait;
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::api::{Api, ListParams};
use std::fs;
use std::process::Command;
use tokio::sync::OnceCell;

/// `NodesOptions { nodes: 1, ..NodesOptions::default() }`.
#[derive(Debug, Clone, Copy)]
pub struct NodesOptions {
    pub nodes: usize,
    /// Whether pods may name [`catalogue::PRELOAD`], which `make static` builds.
    pub preload: bool,
}

impl Default for NodesOptions {
    fn default() -> Self {
        Self { nodes: 2, preload: true }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Nodes {
    // Dropped in this order: the control plane goes last, with the directory that all use.
    nodes: Vec<Node>,
    _dns: Leash,
    kubernetes: Kubernetes,
}

/// The cluster that all tests share which do no harm to it. Keep to namespaces of your own
/// ([`Kubernetes::namespace`]).
pub async fn shared() -> Result<&'static Nodes> {
    // A start that failed is not tried again by every test.
    static SHARED: OnceCell<Result<Nodes, String>> = OnceCell::const_new();
    let start = async || Nodes::start(NodesOptions::default()).await.map_err(|error| format!("{error:#}"));
    let nodes = SHARED.get_or_init(start).await;
    nodes.as_ref().map_err(|error| anyhow::anyhow!("the shared nodes did not start: {error}"))
}

impl Nodes {
    /// Starts it and waits until every node is Ready.
    pub async fn start(options: NodesOptions) -> Result<Self> {
        let kubernetes = Kubernetes::spawn_for_nodes().await?;
        let numbers = 1..=options.nodes;
        let make_nodes = async {
            let store = store::Store::open(kubernetes.sandbox()).await?;
            let count = options.nodes;
            let nodes = numbers.map(|number| Node::new(&kubernetes, &store, number, count));
            let nodes = try_join_all(nodes).await?;
            if options.preload {
                import(kubernetes.sandbox(), &nodes, catalogue::preload()?).await?;
            }
            anyhow::Ok(nodes)
        };
        let (nodes, dns) = tokio::try_join!(make_nodes, async {
            kubernetes.come_up().await?;
            dns::start(&kubernetes)
        })?;
        let nodes = Self { nodes, _dns: dns, kubernetes };
        let joined = nodes.join().await;
        joined.map_err(|error| anyhow::anyhow!("{error:#}\n{}", nodes.log_excerpt()))?;
        Ok(nodes)
    }

    async fn join(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.join(&self.kubernetes))?;
        try_join_all(self.nodes.iter().map(|node| node.proxied(&self.kubernetes))).await?;
        let objects = Api::<NodeObject>::all(self.kubernetes.client().await?);
        wait::until("all nodes to be Ready", wait::LIMIT, async || {
            let list = objects.list(&ListParams::default()).await.context("list the nodes")?;
            let ready = list.items.iter().filter(|node| is_ready(node)).count();
            ensure!(ready == self.nodes.len(), "{ready} of {} are Ready", self.nodes.len());
            Ok(Some(()))
        })
        .await
    }

    /// Ends it; dropping does the same. Fails if anything is left.
    pub fn stop(self) -> Result<()> {
        let directory = self.kubernetes.sandbox().directory().to_owned();
        let groups: Vec<_> = self.nodes.iter().map(|node| node.machine().group().to_owned()).collect();
        drop(self);
        let processes = processes::naming(&directory);
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        let groups: Vec<_> = groups.iter().flat_map(|name| cgroup::find(name)).collect();
        ensure!(groups.is_empty(), "control groups are left: {groups:?}");
        ensure!(!directory.exists(), "{} is left", directory.display());
        Ok(())
    }

    /// The control plane: clients, kubectl, namespaces, the audit log.
    pub fn kubernetes(&self) -> &Kubernetes {
        &self.kubernetes
    }

    pub fn all(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("there is no node {name:?}"))
    }

    /// Gives an image to every node.
    pub async fn import(&self, image: Image) -> Result<()> {
        import(self.kubernetes.sandbox(), &self.nodes, image).await
    }

    /// Gives an image another name too, on every node.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        let sandbox = self.kubernetes.sandbox();
        let tag = ["images", "tag", image, name];
        try_join_all(self.nodes.iter().map(|node| node.ctr(sandbox, &tag))).await.map(drop)
    }

    /// Runs a program beside the control plane, where pods, Services and their names are reached.
    pub async fn run(&self, command: &Command) -> Result<Output> {
        let machine = self.kubernetes.machine().context("there is no network of nodes")?;
        machine.run(self.kubernetes.sandbox(), command, wait::LIMIT).await
    }

    /// A port here that leads to `ADDRESS:PORT` there: of a pod, a node or a Service, by its number.
    pub fn forward(&self, target: &str) -> Result<Forward> {
        let machine = self.kubernetes.machine().context("there is no network of nodes")?;
        Forward::to(machine, &self.kubernetes.sandbox().free_address(), target)
    }

    /// A container of a pod, also one of the init containers, that runs.
    pub async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<Container<'_>> {
        let pods = Api::<Pod>::namespaced(self.kubernetes.client().await?, namespace);
        let object = pods.get(pod).await.with_context(|| format!("get pod {namespace}/{pod}"))?;
        let node = object.spec.and_then(|spec| spec.node_name).context("it is on no node")?;
        let status = object.status.unwrap_or_default();
        let groups = [status.container_statuses, status.init_container_statuses];
        let mut all = groups.into_iter().flatten().flatten();
        let found = all.find(|status| {
            status.name == container && status.state.as_ref().is_some_and(|s| s.running.is_some())
        });
        let id = found.and_then(|status| status.container_id);
        let id = id.with_context(|| format!("{container} of {namespace}/{pod} does not run"))?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Container { node: self.node(&node)?, sandbox: self.kubernetes.sandbox(), id })
    }

    /// The last lines of every log that do not say that all is well.
    pub fn log_excerpt(&self) -> String {
        let nodes: String = self.nodes.iter().map(Node::log_excerpt).collect();
        format!("{}{nodes}", self.kubernetes.log_excerpt())
    }
}

async fn import(sandbox: &Sandbox, nodes: &[Node], image: Image) -> Result<()> {
    let archive = sandbox.folder("image")?.join("image.tar");
    let target = archive.clone();
    tokio::task::spawn_blocking(move || image.write(&target)).await??;
    try_join_all(nodes.iter().map(|node| node.import(sandbox, &archive))).await?;
    fs::remove_file(archive).context("remove the archive")
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
