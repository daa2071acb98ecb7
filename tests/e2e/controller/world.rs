//! What most tests of the controller start with.

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use preload_tests::{
    Cluster, Controller, Course, Data, Fluid, Kubernetes, Sidecar, shared, shared_fluid, wait,
};

/// A namespace with a runtime that does not exist yet, a sidecar on the shared Alluxio, and a controller.
#[derive(Debug)]
pub(super) struct World {
    pub(super) kubernetes: &'static Kubernetes,
    pub(super) alluxio: &'static Cluster,
    pub(super) namespace: String,
    pub(super) fluid: Fluid,
    pub(super) preloads: Course,
    pub(super) runtimes: Course,
    pub(super) controller: Controller<'static>,
    pub(super) sidecar: Sidecar<'static>,
}

/// Name of the runtime, and of its Preload.
pub(super) const NAME: &str = "hbase";
/// Workers of the shared Alluxio.
pub(super) const WORKERS: i32 = 2;

impl World {
    pub(super) async fn new(prefix: &str) -> Result<Self> {
        Self::with(prefix, &[]).await
    }

    /// With arguments for the sidecar.
    pub(super) async fn with(prefix: &str, arguments: &[&str]) -> Result<Self> {
        let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
        let namespace = kubernetes.namespace(prefix, &[]).await?;
        let client = kubernetes.client().await?;
        let (preloads, runtimes) = tokio::try_join!(
            Course::of_preloads(&client, &namespace),
            Course::of_runtimes(&client, &namespace)
        )?;
        let (controller, sidecar) =
            tokio::try_join!(Controller::start(kubernetes, &namespace), Sidecar::start(alluxio, arguments))?;
        let fluid = Fluid::new(kubernetes, &namespace, NAME).await?;
        Ok(Self { kubernetes, alluxio, namespace, fluid, preloads, runtimes, controller, sidecar })
    }

    /// Fresh files in the UFS.
    pub(super) fn data(&self, name: &str, files: usize, bytes: u64) -> Result<Data> {
        let data = self.alluxio.data(name)?;
        data.files(files, bytes)?;
        Ok(data)
    }

    /// Creates the runtime for `path`, with everything ready.
    pub(super) async fn ready_runtime(&self, path: &str, replicas: i32) -> Result<()> {
        self.fluid.create(spec(path, replicas), &[]).await?;
        self.fluid.everything_ready(self.sidecar.address(), WORKERS).await
    }

    /// Waits until the runtime shows `preloadStatus`.
    pub(super) async fn shows(&self, status: &str) -> Result<()> {
        self.runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == status).await.map(drop)
    }

    /// Waits until the last state of the runtime shows it.
    pub(super) async fn now_shows(&self, status: &str) -> Result<()> {
        wait::until(&format!("the runtime to show {status}"), wait::LIMIT, async || {
            let last = self.runtimes.of(NAME).pop().context("no runtime")?;
            let shown = last.text("/status/preloadStatus");
            anyhow::ensure!(shown == status, "it shows {shown:?}");
            Ok(Some(()))
        })
        .await
    }

    /// preloadStatus of the runtime over time.
    pub(super) fn statuses(&self) -> Vec<String> {
        self.runtimes.values(NAME, "/status/preloadStatus")
    }

    /// Waits until the Events of the namespace hold these words. They follow the write that they tell of.
    pub(super) async fn events_tell(&self, words: &[&str]) -> Result<()> {
        wait::until(&format!("events with {words:?}"), wait::LIMIT, async || {
            let events = self.kubectl(&["get", "events.events.k8s.io"]).await?;
            anyhow::ensure!(words.iter().all(|word| events.contains(word)), "{events}");
            Ok(Some(()))
        })
        .await
    }

    pub(super) async fn preload_api(&self) -> Result<Api<DynamicObject>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("preload.dev", "v1alpha1", "Preload"));
        Ok(Api::namespaced_with(self.kubernetes.client().await?, &self.namespace, &resource))
    }

    /// kubectl in the namespace; its output.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all = [arguments, &["--namespace", &self.namespace]].concat();
        self.kubernetes.kubectl(&all).await?.success().context("kubectl")
    }

    /// Ids of all loads that the sidecar has.
    pub(super) async fn loads(&self) -> Result<Vec<alluxio_preload_api::v1::Load>> {
        let request = alluxio_preload_api::v1::ListLoadsRequest { page_size: 1000, ..Default::default() };
        Ok(self.sidecar.client()?.list_loads(request).await?.into_inner().loads)
    }
}

/// A runtime that wishes `path`.
pub(super) fn spec(path: &str, replicas: i32) -> serde_json::Value {
    serde_json::json!({
        "replicas": WORKERS,
        "data": { "replicas": replicas, "preload": { "enabled": true, "path": path } },
    })
}
