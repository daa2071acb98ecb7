//! One node: a machine with containerd, a container network, kubelet and kube-proxy.
//!
//! Invariants: all its files are in one directory of the sandbox; what its programs write to fixed places is
//! seen by them alone.

use super::containerd::Containerd;
use super::store::Store;
use crate::certificates::Identity;
use crate::kubernetes::{Kubernetes, lan};
use crate::leash::Leash;
use crate::machine::Machine;
use crate::prerequisites;
use crate::sandbox::Sandbox;
use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many lines of a log are shown when a node does not start.
const SHOWN_LINES: usize = 8;
const HEALTH_PORT: u16 = 10_256;

/// A process of a node that Kubernetes brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePart {
    Kubelet,
    KubeProxy,
}

impl fmt::Display for NodePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: usize,
    directory: PathBuf,
    // Dropped in this order: what runs, then where it runs.
    parts: Mutex<BTreeMap<NodePart, Leash>>,
    containerd: Containerd,
    machine: Machine,
}

/// Of a node by its number.
fn address(number: usize) -> String {
    format!("172.30.0.{}", 10 + number)
}

/// Addresses of its pods.
fn pods(number: usize) -> String {
    format!("10.88.{number}.0/24")
}

impl Node {
    /// Makes one of `count` nodes, which count from 1, with its images; the control plane may still start.
    pub(super) async fn new(
        kubernetes: &Kubernetes,
        store: &Store,
        number: usize,
        count: usize,
    ) -> Result<Self> {
        let name = format!("node-{number}");
        let sandbox = kubernetes.sandbox();
        let directory = sandbox.directory().join(&name);
        for folder in ["cni", "sysctl", "lib/upper", "lib/work", "log/upper", "log/work"] {
            fs::create_dir_all(directory.join(folder)).context("make the node's folders")?;
        }
        let machine = Machine::new(sandbox, &name)?;
        machine
            .script(sandbox, &preparation(&name, &address(number), &directory), wait::LIMIT)
            .await
            .with_context(|| format!("prepare {name}"))?;
        connect(kubernetes, &machine, number, count).await.with_context(|| format!("connect {name}"))?;
        write_json(&directory.join("cni/10-bridge.conflist"), &container_network(&directory, number))?;
        store.copy_to(sandbox, &directory).await?;
        let containerd = Containerd::start(&machine, sandbox, &directory).await?;
        Ok(Self { name, number, directory, parts: Mutex::default(), containerd, machine })
    }

    /// Starts kubelet and kube-proxy; the API server answers.
    pub(super) fn join(&self, kubernetes: &Kubernetes) -> Result<()> {
        let access = kubernetes.access();
        let kubelet = access.on_node(&format!("system:node:{}", self.name), "system:nodes")?;
        let serving = access.authority.identity(&[&self.name, &self.address()])?;
        let configuration = self.kubelet_configuration(access.authority.certificate(), &serving);
        write_json(&self.directory.join("kubelet.json"), &configuration)?;
        let proxy = access.on_node("system:kube-proxy", &self.name)?;
        write_json(&self.directory.join("kube-proxy.json"), &self.proxy_configuration(&proxy))?;
        // Which of them the node runs with stays the same when it is started again.
        fs::copy(kubelet, self.directory.join("kubelet.kubeconfig")).context("keep the kubelet's access")?;
        self.start_part(NodePart::Kubelet)?;
        self.start_part(NodePart::KubeProxy)
    }

    /// Waits until kube-proxy has done its first round.
    pub(super) async fn proxied(&self, kubernetes: &Kubernetes) -> Result<()> {
        let lan = kubernetes.machine().context("there is no network of nodes")?;
        let mut command = Command::new(prerequisites::busybox()?);
        let url = format!("http://{}:{HEALTH_PORT}/healthz", self.address());
        command.args(["wget", "-q", "-O", "-", &url]);
        wait::until("kube-proxy to be healthy", wait::LIMIT, async || {
            if let Some((part, exit)) = self.ended() {
                return Ok(Some(Err(anyhow::anyhow!("{part} of {} has ended with {exit:?}", self.name))));
            }
            lan.run(kubernetes.sandbox(), &command, wait::LIMIT).await?.success()?;
            Ok(Some(Ok(())))
        })
        .await?
    }

    // === processes ===

    fn parts(&self) -> MutexGuard<'_, BTreeMap<NodePart, Leash>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a part that does not run, and does not wait.
    pub fn start_part(&self, part: NodePart) -> Result<()> {
        let mut command = Command::new(prerequisites::kubernetes()?);
        command.arg(part.to_string()).arg("--config").arg(self.directory.join(format!("{part}.json")));
        if part == NodePart::Kubelet {
            command.arg("--kubeconfig").arg(self.directory.join("kubelet.kubeconfig"));
            command.arg("--root-dir").arg(self.directory.join("kubelet"));
            command.arg("--cert-dir").arg(self.directory.join("kubelet"));
            command.args(["--hostname-override", &self.name, "--node-ip", &self.address()]);
        }
        let mut parts = self.parts();
        if parts.get(&part).is_some_and(Leash::is_running) {
            bail!("{part} of {} runs already", self.name);
        }
        let log = self.log(part);
        let leash = self.machine.start(&command, &log, &log);
        parts.insert(part, leash.with_context(|| format!("start {part} of {}", self.name))?);
        Ok(())
    }

    /// Sends any signal, such as SIGSTOP for a silent node and SIGCONT to wake it.
    pub fn signal(&self, part: NodePart, signal: Signal) -> Result<()> {
        self.parts().get(&part).with_context(|| format!("{part} does not run"))?.signal(signal)
    }

    fn ended(&self) -> Option<(NodePart, crate::leash::Exit)> {
        self.parts().iter().find_map(|(part, leash)| Some((*part, leash.exit()?)))
    }

    // === where things are ===

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its pods with a host port, and its kubelet, are reached from the network of the nodes.
    pub fn address(&self) -> String {
        address(self.number)
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn log(&self, part: NodePart) -> PathBuf {
        self.directory.join(format!("{part}.log"))
    }

    /// The last lines of its logs that do not say that all is well.
    pub(super) fn log_excerpt(&self) -> String {
        let mut excerpt = String::new();
        let parts = [NodePart::Kubelet, NodePart::KubeProxy].map(|part| part.to_string());
        for name in parts.iter().map(String::as_str).chain(["containerd"]) {
            let text = fs::read(self.directory.join(format!("{name}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let tells = |line: &&str| !line.starts_with('I') && !line.contains("level=info");
            let lines: Vec<_> = text.lines().filter(tells).collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                let line = line.chars().take(400).collect::<String>();
                excerpt.push_str(&format!("\n  {} {name}: {line}", self.name));
            }
        }
        excerpt
    }

    // === use ===

    /// Takes in the image of an OCI archive.
    pub(super) async fn import(&self, sandbox: &Sandbox, archive: &Path) -> Result<()> {
        let imported = self.containerd.import(&self.machine, sandbox, archive).await;
        imported.with_context(|| format!("import an image on {}", self.name))
    }

    /// Runs containerd's command line.
    pub(super) async fn ctr(&self, sandbox: &Sandbox, arguments: &[&str]) -> Result<String> {
        self.containerd.ctr(&self.machine, sandbox, arguments).await
    }

    // === configuration ===

    fn kubelet_configuration(&self, authority: &Path, serving: &Identity) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address(),
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": authority },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": serving.certificate,
            "tlsPrivateKeyFile": serving.key,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.machine.group()),
            // Many a sandboxed machine still has version 1.
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerRuntimeEndpoint": format!("unix://{}", self.containerd.socket().display()),
            "podLogsDir": self.directory.join("pods"),
            "volumePluginDir": self.directory.join("volume-plugins"),
            // That of this machine means nothing there.
            "resolvConf": "",
            "clusterDNS": [lan::ADDRESS],
            "clusterDomain": "cluster.local",
            // The disk is everybody's: its being full is no reason to end pods.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            // Quicker than by default, so that tests wait less.
            "fileCheckFrequency": "5s",
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        })
    }

    fn proxy_configuration(&self, kubeconfig: &Path) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": { "kubeconfig": kubeconfig },
            "clusterCIDR": "10.88.0.0/16",
            "hostnameOverride": self.name,
            "healthzBindAddress": format!("{}:{HEALTH_PORT}", self.address()),
            "metricsBindAddress": "127.0.0.1:10249",
            // Limits of the kernel, which are everybody's.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        })
    }
}

/// Before anything runs: names, and private places for what is written to fixed ones.
fn preparation(name: &str, address: &str, directory: &Path) -> String {
    format!(
        r#"cd '{directory}'
        hostname {name}
        # Also of pods on its network, which have its name.
        printf '127.0.0.1 localhost\n{address} {name}\n' > hosts
        mount --bind hosts /etc/hosts
        ip link set lo up
        echo 1 > /proc/sys/net/ipv4/ip_forward
        mount -t tmpfs -o mode=755 tmpfs /run
        for folder in lib log; do
          mount -t overlay -o "lowerdir=/var/$folder,upperdir=$PWD/$folder/upper,workdir=$PWD/$folder/work" \
            overlay "/var/$folder"
        done
        # The kubelet wants them like this, and they are everybody's: it reads files that say so.
        for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
          file=sysctl/$(basename "${{setting%=*}}")
          echo "${{setting#*=}}" > "$file"
          mount --bind "$file" "/proc/sys/${{setting%=*}}"
        done"#,
        directory = directory.display()
    )
}

/// A cable to the network of the nodes, and the ways to the pods of all nodes.
async fn connect(kubernetes: &Kubernetes, machine: &Machine, number: usize, count: usize) -> Result<()> {
    let sandbox = kubernetes.sandbox();
    let lan = kubernetes.machine().context("there is no network of nodes")?;
    // The kernel is told of the other end's network by a process id, which has to be one that we count.
    let mut cable = Command::new("nsenter");
    cable.args(["--target", &lan.pid().to_string(), "--net"]).arg(prerequisites::program("ip")?);
    let name = format!("node-{number}");
    let pid = machine.pid().to_string();
    cable.args(["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
    sandbox.run(&cable, wait::LIMIT).await?.success().context("add a cable")?;
    let (address, pods_here) = (address(number), pods(number));
    let mut here = format!(
        "ip link set {name} master {} up
         ip route add {pods_here} via {address}\n",
        lan::BRIDGE
    );
    if number == 1 {
        // Services are reached from there as from a node.
        here.push_str(&format!("ip route add 10.96.0.0/16 via {address}\n"));
    }
    let mut there = format!(
        "ip address add {address}/24 dev eth0
         ip link set eth0 up
         ip route add default via {}\n",
        lan::ADDRESS
    );
    for other in (1..=count).filter(|other| *other != number) {
        there.push_str(&format!("ip route add {} via {}\n", pods(other), self::address(other)));
    }
    machine.script(sandbox, &there, wait::LIMIT).await?;
    lan.script(sandbox, &here, wait::LIMIT).await
}

fn container_network(directory: &Path, number: usize) -> Value {
    let ipam = json!({
        "type": "host-local",
        "dataDir": directory.join("addresses"),
        "ranges": [[{ "subnet": pods(number) }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": ipam },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, value.to_string()).with_context(|| format!("write {}", path.display()))
}
