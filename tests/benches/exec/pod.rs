//! One pod with a sidecar, and every way to have something done in it.
//!
//! Invariant: what a call takes is measured by whoever makes it, so that starting the measurement costs nothing.

use super::Side;
use alluxio_preload_api::client::{Client, ClientConfig, Tls, Token};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, AttachParams};
use preload_tests::nodes::catalogue;
use preload_tests::{Authority, Forward, Nodes, leash, load, prerequisites, wait};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

const NAME: &str = "measured";
const CONTAINER: &str = "preload-sidecar";
const PORT: u16 = 29_700;
/// In the certificate.
const HOST: &str = "measured.bench.preload.dev";
/// The load that is there already, and that of preloadctl, whose wish is its own.
const SAME: &str = "the-same";
const SAME_OF_PRELOADCTL: &str = "the-same-of-preloadctl";
/// What is asked for by exec: the least that a process can do.
const NO_OP: [&str; 2] = ["/preload-sidecar", "--version"];
/// Runs a command again and again, and prints when each began and ended.
const LOOP: &str = r#"calls=$1; shift
for ((call = 0; call < calls; call++)); do
  begun=$EPOCHREALTIME
  "$@" >/dev/null
  echo "$begun $EPOCHREALTIME"
done"#;

/// See the module.
#[derive(Debug)]
pub(super) struct Target<'a> {
    nodes: &'a Nodes,
    namespace: String,
    /// As the network of the nodes knows it.
    address: String,
    config: ClientConfig,
    warm: Client,
    pods: Api<Pod>,
    authority: PathBuf,
    token: PathBuf,
    _forward: Forward,
}

impl<'a> Target<'a> {
    /// Waits until the sidecar has answered.
    pub(super) async fn start(nodes: &'a Nodes) -> Result<Self> {
        let kubernetes = nodes.kubernetes();
        let folder = kubernetes.sandbox().folder("exec")?;
        let authority = Authority::new(&folder)?;
        let token = folder.join("token");
        fs::write(&token, Uuid::new_v4().to_string()).context("write the token")?;
        let namespace = kubernetes.namespace("exec", &[]).await?;
        kubernetes.apply(&objects(&namespace, &authority, &token)?).await?;
        let ready =
            ["wait", "--for=condition=Ready", "--timeout=100s", "--namespace", &namespace, "pod", NAME];
        kubernetes.kubectl(&ready).await?.success().context("wait for the pod")?;
        let pods = Api::<Pod>::namespaced(kubernetes.client().await?, &namespace);
        let status = pods.get(NAME).await.context("get the pod")?.status;
        let address = status.and_then(|status| status.pod_ip).context("the pod has no address")?;
        let address = format!("{address}:{PORT}");
        let forward = nodes.forward(&address)?;
        let mut config = ClientConfig::new(format!("https://{}", forward.address()).parse()?);
        let ca = fs::read(authority.certificate()).context("read the authority")?;
        config.tls = Some(Tls { ca, identity: None, server_name: Some(HOST.to_owned()) });
        config.token = Some(Token::Value(fs::read_to_string(&token).context("read the token")?));
        let warm = Client::new(config.clone())?;
        wait::until("the sidecar to answer", wait::LIMIT, async || {
            Ok(Some(warm.start_load(load(SAME, "/same", 1)).await?))
        })
        .await?;
        let authority = authority.certificate().to_owned();
        Ok(Self { nodes, namespace, address, config, warm, pods, authority, token, _forward: forward })
    }

    /// Versions of the kubelet and of what it runs containers with.
    pub(super) async fn versions(&self) -> Result<String> {
        let name = self.nodes.all().first().context("there is no node")?.name();
        let objects = Api::<Node>::all(self.nodes.kubernetes().client().await?);
        let status = objects.get(name).await.context("get the node")?.status;
        let info = status.and_then(|status| status.node_info).context("the node says nothing of itself")?;
        Ok(format!("Kubernetes {}, {}", info.kubelet_version, info.container_runtime_version))
    }

    /// What each of so many calls took, one after the other.
    pub(super) async fn calls(&self, side: Side, calls: usize) -> Result<Vec<Duration>> {
        match side {
            Side::Preloadctl => self.processes(&self.preloadctl()?, calls).await,
            Side::Kubectl => self.processes(&self.kubectl(&["version", "--client"])?, calls).await,
            Side::KubectlExec => {
                let exec = ["exec", "--namespace", &self.namespace, NAME, "--container", CONTAINER, "--"];
                self.processes(&self.kubectl(&[&exec[..], &NO_OP].concat())?, calls).await
            }
            Side::Same | Side::New | Side::Connection | Side::Exec => {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let begun = Instant::now();
                    self.call(side).await?;
                    times.push(begun.elapsed());
                }
                Ok(times)
            }
        }
    }

    /// By this process.
    async fn call(&self, side: Side) -> Result<()> {
        let start = async |client: &Client, id: &str| {
            client.start_load(load(id, "/same", 1)).await.map(drop).context("StartLoad")
        };
        match side {
            Side::New => start(&self.warm, &format!("new-{}", Uuid::new_v4())).await,
            Side::Connection => start(&Client::new(self.config.clone())?, SAME).await,
            Side::Exec => self.exec().await,
            _ => start(&self.warm, SAME).await,
        }
    }

    /// As kubectl does it: both outputs, no input.
    async fn exec(&self) -> Result<()> {
        let parameters = AttachParams::default().container(CONTAINER);
        let mut process = self.pods.exec(NAME, NO_OP, &parameters).await.context("exec")?;
        let status = process.take_status().context("there is no status")?;
        let (mut stdout, mut said) = (process.stdout().context("there is no output")?, String::new());
        stdout.read_to_string(&mut said).await.context("read the output")?;
        let status = status.await.context("it ended without a status")?;
        ensure!(status.status.as_deref() == Some("Success") && !said.is_empty(), "exec: {status:?}");
        process.join().await.context("end the exec")
    }

    /// A process for each call, beside the control plane.
    async fn processes(&self, command: &Command, calls: usize) -> Result<Vec<Duration>> {
        let mut script = Command::new(prerequisites::program("bash")?);
        script.args(["-euc", LOOP, "bash", &calls.to_string()]);
        script.arg(command.get_program()).args(command.get_args());
        // kubectl keeps a cache there.
        script.env("HOME", self.nodes.kubernetes().sandbox().directory());
        let said = self.nodes.run(&script).await?.success()?;
        let times = said.lines().map(|line| {
            let (begun, ended) = line.split_once(' ').with_context(|| format!("understand {line:?}"))?;
            let microseconds = |time: &str| time.replace('.', "").parse::<u64>();
            Ok(Duration::from_micros(microseconds(ended)?.saturating_sub(microseconds(begun)?)))
        });
        let times: Vec<_> = times.collect::<Result<_>>()?;
        ensure!(times.len() == calls, "{} calls instead of {calls}", times.len());
        Ok(times)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(prerequisites::kubectl()?);
        command.arg("--kubeconfig").arg(self.nodes.kubernetes().kubeconfig()).args(arguments);
        Ok(command)
    }

    fn preloadctl(&self) -> Result<Command> {
        let mut command = Command::new(leash::sibling("preloadctl")?);
        command.args(["start", "/same", "--id", SAME_OF_PRELOADCTL, "--address"]);
        command.arg(format!("https://{}", self.address)).args(["--tls-server-name", HOST]);
        command.arg("--tls-ca").arg(&self.authority).arg("--token-file").arg(&self.token);
        Ok(command)
    }
}

/// The Secret and the pod. There is no Alluxio: StartLoad never asks it.
fn objects(namespace: &str, authority: &Authority, token: &Path) -> Result<String> {
    let identity = authority.identity(&[HOST])?;
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "namespace": namespace, "name": "credentials" },
        "stringData": {
            "tls.crt": read(&identity.certificate)?,
            "tls.key": read(&identity.key)?,
            "tokens": read(token)?,
        },
    });
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": NAME },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": CONTAINER,
                "image": catalogue::PRELOAD,
                "command": ["/preload-sidecar"],
                "args": [
                    "serve", format!("--listen=0.0.0.0:{PORT}"), "--state-dir=/preload/state",
                    "--credentials=/preload/credentials", "--max-queued=100000", "--log=warn",
                    "--alluxio=/no-launcher", "--alluxio-master=127.0.0.1:19998",
                ],
                "volumeMounts": [
                    mount("state", "/preload/state"),
                    mount("credentials", "/preload/credentials"),
                    mount("temporary", "/tmp"),
                ],
            }],
            "volumes": [
                { "name": "state", "emptyDir": {} },
                { "name": "credentials", "secret": { "secretName": "credentials" } },
                { "name": "temporary", "emptyDir": {} },
            ],
        },
    });
    Ok(format!("{secret}\n---\n{pod}\n"))
}
