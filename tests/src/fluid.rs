//! Plays what is not there on a Kubernetes without nodes: Fluid, which reports on a runtime, and the kubelet,
//! which reports on pods. It writes objects and statuses as they do, and nothing else.

use crate::kubernetes::Kubernetes;
use crate::wait;
use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// One AlluxioRuntime of a namespace, and the pod of its first master.
#[derive(Debug, Clone)]
pub struct Fluid {
    client: ClientBox,
    namespace: String,
    name: String,
}

/// A client, whose type has no Debug.
#[derive(Clone)]
struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// What Fluid says of a phase.
pub const READY: &str = "Ready";
pub const PARTIAL_READY: &str = "PartialReady";
pub const NOT_READY: &str = "NotReady";

/// Port and address of a pod, as `IP:PORT`.
fn split(address: &str) -> Result<(&str, &str)> {
    address.rsplit_once(':').with_context(|| format!("{address} is no IP:PORT"))
}

impl Fluid {
    /// Nothing is created yet.
    pub async fn new(kubernetes: &Kubernetes, namespace: &str, name: &str) -> Result<Self> {
        let client = ClientBox(kubernetes.client().await?);
        Ok(Self { client, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn resource() -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk("data.fluid.io", "v1alpha1", "AlluxioRuntime"))
    }

    /// The runtime's API, untyped: what the server really holds.
    pub fn runtimes(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.0.clone(), &self.namespace, &Self::resource())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    // === the user ===

    /// Creates the runtime with `spec`, and annotations.
    pub async fn create(&self, spec: Value, annotations: &[(&str, &str)]) -> Result<()> {
        let annotations: Value = annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let object = json!({
            "apiVersion": "data.fluid.io/v1alpha1",
            "kind": "AlluxioRuntime",
            "metadata": { "name": self.name, "namespace": self.namespace, "annotations": annotations },
            "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object)?;
        self.runtimes().create(&PostParams::default(), &object).await.context("create the runtime").map(drop)
    }

    /// Changes the runtime, as `kubectl patch --type=merge` does.
    pub async fn edit(&self, patch: Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        self.runtimes()
            .patch(&self.name, &PatchParams::default(), &patch)
            .await
            .context("edit the runtime")
            .map(drop)
    }

    /// Deletes the runtime, and does not wait.
    pub async fn delete(&self) -> Result<()> {
        self.runtimes()
            .delete(&self.name, &DeleteParams::background())
            .await
            .context("delete the runtime")
            .map(drop)
    }

    /// The runtime as it is.
    pub async fn get(&self) -> Result<DynamicObject> {
        self.runtimes().get(&self.name).await.context("get the runtime")
    }

    // === Fluid ===

    /// Fluid's whole report. Its typed status has no fields of ours, so they are kept by this patch and erased
    /// by [`Fluid::put_typed`].
    pub async fn report(&self, master: &str, workers: &str, ready: i32, desired: i32) -> Result<()> {
        let patch =
            Patch::Merge(json!({ "status": Self::status(&self.name, master, workers, ready, desired) }));
        let written = self.runtimes().patch_status(&self.name, &PatchParams::default(), &patch).await;
        written.context("report on the runtime").map(drop)
    }

    /// Everything is ready.
    pub async fn report_ready(&self, workers: i32) -> Result<()> {
        self.report(READY, READY, workers, workers).await
    }

    fn status(name: &str, master: &str, workers: &str, ready: i32, desired: i32) -> Value {
        json!({
            "valueFile": format!("{name}-alluxio-values"),
            "masterPhase": master,
            "workerPhase": workers,
            "fusePhase": READY,
            "desiredWorkerNumberScheduled": desired,
            "currentWorkerNumberScheduled": desired,
            "workerNumberReady": ready,
            "desiredMasterNumberScheduled": 1,
            "currentMasterNumberScheduled": 1,
            "masterNumberReady": i32::from(master == READY),
            "desiredFuseNumberScheduled": 0,
            "currentFuseNumberScheduled": 0,
            "fuseNumberReady": 0,
        })
    }

    /// PUTs the object and its status as a Go program does whose types lack our fields.
    pub async fn put_typed(&self) -> Result<()> {
        let mut object = self.get().await?;
        if let Some(data) = object.data.pointer_mut("/spec/data").and_then(Value::as_object_mut) {
            data.remove("preload");
        }
        if let Some(status) = object.data.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("preloadStatus");
            status.remove("preloadProgress");
        }
        let written = self.runtimes().replace(&self.name, &PostParams::default(), &object).await;
        let written = written.context("update the runtime")?;
        object.metadata.resource_version = written.resource_version();
        if object.data.get("status").is_some() {
            self.runtimes()
                .replace_status(&self.name, &PostParams::default(), &object)
                .await
                .context("update the runtime's status")?;
        }
        Ok(())
    }

    /// Fluid's finalizer: a deletion waits until it has taken the cluster down.
    pub async fn hold(&self) -> Result<()> {
        self.edit(json!({ "metadata": { "finalizers": ["fluid.io/alluxio-runtime-controller-finalizer"] } }))
            .await
    }

    /// The cluster is down.
    pub async fn let_go(&self) -> Result<()> {
        self.edit(json!({ "metadata": { "finalizers": null } })).await
    }

    /// Something more was mounted.
    pub async fn mounted(&self, time: &str) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": { "mountTime": time } }));
        self.runtimes()
            .patch_status(&self.name, &PatchParams::default(), &patch)
            .await
            .context("mount")
            .map(drop)
    }

    // === the kubelet ===

    /// Name of the pod of the first master.
    pub fn master_pod_name(&self) -> String {
        format!("{}-master-0", self.name)
    }

    /// Creates the pod of the first master, with its sidecar at `IP:PORT`; its uid.
    pub async fn create_master_pod(&self, sidecar: &str, ready: bool) -> Result<String> {
        self.create_pod(sidecar, ready, None).await
    }

    /// The same with a StatefulSet as its owner, and as if its sidecar had been injected.
    pub async fn create_injected_master_pod(&self, sidecar: &str) -> Result<String> {
        let labels = json!({ "role": "alluxio-master", "release": self.name });
        let set: StatefulSet = serde_json::from_value(json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": { "name": format!("{}-master", self.name), "labels": labels },
            "spec": {
                // The pod is ours to make.
                "replicas": 0,
                "serviceName": self.name,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "alluxio-master", "image": "alluxio" }] },
                },
            },
        }))?;
        let sets: Api<StatefulSet> = Api::namespaced(self.client.0.clone(), &self.namespace);
        let set =
            sets.create(&PostParams::default(), &set).await.context("create the masters' StatefulSet")?;
        self.create_pod(sidecar, true, Some(&set)).await
    }

    async fn create_pod(&self, sidecar: &str, ready: bool, owner: Option<&StatefulSet>) -> Result<String> {
        let (_, port) = split(sidecar)?;
        let name = self.master_pod_name();
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {
                    "app": "alluxio", "role": "alluxio-master", "release": self.name,
                    "fluid.io/managed-by": "fluid",
                },
                "annotations": { "preload.dev/sidecar-port": port },
            },
            "spec": {
                "containers": [{ "name": "alluxio-master", "image": "alluxio" }],
                "automountServiceAccountToken": false,
            },
        });
        if let Some(owner) = owner {
            pod["metadata"]["annotations"]["preload.dev/injected"] = json!("test");
            // Not as its controller, which would delete a pod that it has not asked for.
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner.name_any(), "uid": owner.uid(),
            }]);
        }
        let pod: Pod = serde_json::from_value(pod)?;
        let created =
            self.pods().create(&PostParams::default(), &pod).await.context("create the master's pod")?;
        self.master_pod_is(sidecar, ready).await?;
        created.uid().context("a pod has a uid")
    }

    /// The kubelet's report on that pod.
    pub async fn master_pod_is(&self, sidecar: &str, ready: bool) -> Result<()> {
        let (ip, _) = split(sidecar)?;
        let status = if ready { "True" } else { "False" };
        let patch = json!({ "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": status }],
        }});
        let patch = Patch::Strategic(patch);
        let pods = self.pods();
        let written = pods.patch_status(&self.master_pod_name(), &PatchParams::default(), &patch).await;
        written.context("report on the master's pod").map(drop)
    }

    /// Deletes that pod, and waits until it is gone.
    pub async fn delete_master_pod(&self) -> Result<()> {
        let name = self.master_pod_name();
        let now = DeleteParams::default().grace_period(0);
        self.pods().delete(&name, &now).await.context("delete the master's pod")?;
        wait::until("the master's pod to be gone", wait::LIMIT, async || {
            Ok(self.pods().get_opt(&name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Pod and reports as of a cluster where all is well.
    pub async fn everything_ready(&self, sidecar: &str, workers: i32) -> Result<()> {
        self.create_master_pod(sidecar, true).await?;
        self.report_ready(workers).await
    }
}
