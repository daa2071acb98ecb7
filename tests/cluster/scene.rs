//! What every case is played on: two nodes, the installation as a user makes it, and loads of its own.
//!
//! Invariants: what is installed is what ships when a case begins, whatever the one before has done to it; a case
//! that fails takes the cluster with it, and the next has another.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret};
use kube::Client;
use kube::api::Api;
use nix::sys::signal::Signal;
use preload_tests::nodes::{Installation, PortForward, alluxio};
use preload_tests::{AlluxioPods, Container, Course, Nodes, NodesOptions, Shown, grpcurl, http, wait};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Mutex;

pub(crate) const SIDECAR: &str = "preload-sidecar";
pub(crate) const MASTER: &str = "alluxio-master";
/// Small ones: each costs its round trips, so that a load of a thousand has a middle.
const FILE: u64 = 32 << 10;
/// A master starts again, and its workers register.
const PATIENCE: Duration = Duration::from_secs(300);

/// See the module.
pub(crate) struct Scene<'a> {
    pub(crate) nodes: &'a Nodes,
    pub(crate) installation: &'a Installation<'a>,
    pub(crate) alluxio: AlluxioPods<'a>,
    pub(crate) client: Client,
    pub(crate) preloads: Course,
}

/// Plays a case. Tells what everybody said when it fails.
pub(crate) async fn play(case: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    static CLUSTER: Mutex<Option<Nodes>> = Mutex::const_new(None);
    let mut shared = CLUSTER.lock().await;
    let nodes = match shared.take() {
        Some(nodes) => nodes,
        None => Nodes::start(NodesOptions::default()).await?,
    };
    let installation = Installation::standalone(&nodes).await?;
    let played = async {
        installation.controller_ready().await?;
        let alluxio = installation.alluxio();
        alluxio.ready().await?;
        let client = nodes.kubernetes().client().await?;
        let preloads = Course::of_preloads(&client, alluxio::NAMESPACE).await?;
        case(&Scene { nodes: &nodes, installation: &installation, alluxio, client, preloads }).await
    };
    if let Err(error) = played.await {
        println!("{}\n{}", installation.controller_log().await, installation.alluxio().describe().await);
        return Err(error);
    }
    *shared = Some(nodes);
    Ok(())
}

/// Processes of Alluxio that stand still, and with them every load.
#[derive(Debug)]
pub(crate) struct Held<'a>(Vec<Container<'a>>);

impl Held<'_> {
    pub(crate) async fn go_on(self) -> Result<()> {
        for container in &self.0 {
            container.kill(Signal::SIGCONT).await?;
        }
        Ok(())
    }
}

/// Where a Preload is Loaded by this run.
pub(crate) fn loaded(run: i64) -> impl Fn(&Shown) -> bool {
    move |shown| shown.text("/status/phase") == "Loaded" && shown.number("/status/run") == run
}

impl Scene<'_> {
    /// Declares a load of so many new files.
    pub(crate) async fn declare(&self, name: &str, files: usize) -> Result<()> {
        self.alluxio.data_at(name)?.files(files, FILE)?;
        let preload = format!(
            "apiVersion: preload.dev/v1alpha1
kind: Preload
metadata: {{namespace: {}, name: {name}}}
spec: {{runtimeRef: {{kind: StatefulSet, name: {MASTER}}}, path: /{name}}}
",
            alluxio::NAMESPACE
        );
        self.nodes.kubernetes().apply(&preload).await
    }

    /// Takes back what [`Self::declare`] declared: the next case has the cache for itself.
    pub(crate) async fn done(&self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "preload", name, "--timeout=60s"]).await.map(drop)
    }

    /// kubectl in the namespace of Alluxio; what it prints.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", alluxio::NAMESPACE];
        self.nodes.kubernetes().kubectl(&[arguments, &namespace].concat()).await?.success()
    }

    /// Waits until some files are loaded, and stops the load there: without its job workers nothing goes on.
    pub(crate) async fn held_in_the_middle(&self, name: &str) -> Result<Held<'_>> {
        self.preloads.until(name, |shown| shown.number("/status/progress/files") > 0).await?;
        let mut held = Vec::new();
        for pod in ["alluxio-worker-0", "alluxio-worker-1"] {
            let worker = self.nodes.container(alluxio::NAMESPACE, pod, "alluxio-job-worker").await?;
            worker.kill(Signal::SIGSTOP).await?;
            held.push(worker);
        }
        let states = self.preloads.of(name);
        let last = states.last().context("a state")?;
        ensure!(last.text("/status/phase") == "Loading", "not in the middle: {}", last.object["status"]);
        Ok(Held(held))
    }

    /// Every file has all its bytes in the cache, as Alluxio itself says.
    pub(crate) async fn everything_is_cached(&self, name: &str, files: usize) -> Result<()> {
        let listed = self.alluxio.alluxio(&["fs", "ls", &format!("/{name}")]).await?.success()?;
        let cached = listed.lines().filter(|line| line.contains("100%")).count();
        ensure!(cached == files, "{cached} of {files} files are cached");
        Ok(())
    }

    /// One load has led from the wish to Loaded.
    pub(crate) fn assert_one_run(&self, name: &str) -> Result<()> {
        let runs: Vec<_> = self.preloads.of(name).iter().map(|shown| shown.number("/status/run")).collect();
        ensure!(runs.iter().all(|run| *run <= 1), "runs: {runs:?}");
        let loads = self.preloads.values(name, "/status/loadID");
        ensure!(loads.len() == 2 && loads[0].is_empty(), "loads: {loads:?}");
        Ok(())
    }

    /// The same, and nothing that was said was taken back.
    pub(crate) fn assert_straight(&self, name: &str) -> Result<()> {
        self.assert_one_run(name)?;
        let phases = self.preloads.values(name, "/status/phase");
        ensure!(phases == ["", "Pending", "Loading", "Loaded"], "phases: {phases:?}");
        Ok(())
    }

    // === the master's pod ===

    pub(crate) async fn master(&self) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), alluxio::NAMESPACE);
        pods.get(alluxio::MASTER).await.context("get the master's pod")
    }

    /// Deletes it, and waits until another is Ready with its master running.
    pub(crate) async fn another_master(&self) -> Result<Pod> {
        let before = self.master().await?.metadata.uid;
        self.kubectl(&["delete", "pod", alluxio::MASTER, "--timeout=100s"]).await?;
        self.master_ready(|pod| pod.metadata.uid != before).await
    }

    /// Waits until it is Ready, with its master running.
    pub(crate) async fn master_ready(&self, which: impl Fn(&Pod) -> bool) -> Result<Pod> {
        wait::until("the master's pod to be Ready", PATIENCE, async || {
            let pod = self.master().await?;
            let runs = status(&pod, MASTER)?.state.as_ref().is_some_and(|state| state.running.is_some());
            ensure!(
                runs && is_ready(&pod) && which(&pod),
                "{:?}",
                pod.status.map(|status| status.conditions)
            );
            Ok(Some(pod))
        })
        .await
    }

    // === the sidecar ===

    /// Waits until `/readyz` gives this status and says these words.
    pub(crate) async fn readyz(&self, wanted: u16, words: &[&str]) -> Result<String> {
        wait::until(&format!("/readyz to say {words:?}"), wait::LIMIT, async || {
            let forward = PortForward::start(self.nodes, alluxio::NAMESPACE, alluxio::MASTER, 29701).await?;
            let (status, body) = http::get(forward.address(), "/readyz").await?;
            ensure!(status == wanted && words.iter().all(|word| body.contains(word)), "{status}: {body}");
            Ok(Some(body))
        })
        .await
    }

    /// Loads of a path that the sidecar knows, whatever became of them.
    pub(crate) async fn loads(&self, path: &str) -> Result<Vec<Value>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), alluxio::NAMESPACE);
        let data = secrets.get("alluxio-master-preload").await?.data.context("no data")?;
        let text = |key: &str| anyhow::Ok(String::from_utf8(data.get(key).context("a key")?.0.clone())?);
        let sandbox = self.nodes.kubernetes().sandbox();
        let ca = sandbox.folder("sidecar-ca")?.join("ca.crt");
        std::fs::write(&ca, text("ca.crt")?)?;
        let token = text("tokens")?;
        let header = format!("authorization: Bearer {}", token.lines().next().context("a token")?);
        let name = format!("{MASTER}.{}.preload.dev", alluxio::NAMESPACE);
        let forward = PortForward::start(self.nodes, alluxio::NAMESPACE, alluxio::MASTER, 29700).await?;
        let (address, method) = (forward.address(), "preload.v1.PreloadService/ListLoads");
        let ca = ca.to_string_lossy();
        let call = ["-cacert", &ca, "-servername", &name, "-H", &header, address, method];
        let answer: Value = serde_json::from_str(&grpcurl(sandbox, &call).await?.success()?)?;
        let loads = answer["loads"].as_array().cloned().unwrap_or_default();
        Ok(loads.into_iter().filter(|load| load["spec"]["path"] == path).collect())
    }
}

/// Of a container, also one of the init containers.
pub(crate) fn status<'a>(pod: &'a Pod, container: &str) -> Result<&'a ContainerStatus> {
    let status = pod.status.as_ref().context("no status")?;
    let groups = [&status.container_statuses, &status.init_container_statuses];
    let mut all = groups.into_iter().flatten().flatten();
    all.find(|status| status.name == container).with_context(|| format!("no container {container}"))
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
