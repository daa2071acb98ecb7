//! What these tests start with: a namespace that is opted in, a controller with its webhook, and masters.

use anyhow::{Context, Result};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{Api, DeleteParams, PostParams},
};
use preload_tests::{Controller, ControllerSetup, Kubernetes, Registration, shared_fluid, wait};
use serde_json::{Value, json};

/// The StatefulSet of a master as Fluid makes it, for runtime `hbase`.
pub(super) const FLUID: &str = include_str!("../../../kubernetes/fluid-master.yaml");
pub(super) const OPTED_IN: (&str, &str) = ("preload.dev/enabled", "true");
pub(super) const PORT: &str = "preload.dev/sidecar-port";
pub(super) const IMAGE: &str = "alluxio-preload:test";

pub(super) struct World {
    pub(super) kubernetes: &'static Kubernetes,
    pub(super) namespace: String,
    pub(super) registration: Registration,
    pub(super) controller: Controller<'static>,
}

impl World {
    pub(super) async fn new(prefix: &str) -> Result<Self> {
        Self::with(prefix, &[], &[]).await
    }

    /// With more labels of the namespace, and more arguments of the controller.
    pub(super) async fn with(prefix: &str, labels: &[(&str, &str)], arguments: &[&str]) -> Result<Self> {
        let kubernetes = shared_fluid().await?;
        let namespace = kubernetes.namespace(prefix, &[&[OPTED_IN], labels].concat()).await?;
        let registration = Registration::of(&namespace);
        let mut setup = ControllerSetup::new(kubernetes, &namespace)
            .webhook()
            .argument(format!("--sidecar-image={IMAGE}"))
            .argument(format!("--webhook-configuration={}", registration.name()));
        for argument in arguments {
            setup = setup.argument(*argument);
        }
        let mut controller = setup.spawn(kubernetes)?;
        registration.create(kubernetes, controller.webhook_address()?, None).await?;
        controller.leading().await?;
        registration.works(kubernetes).await?;
        Ok(Self { kubernetes, namespace, registration, controller })
    }

    pub(super) async fn pods(&self) -> Result<Api<Pod>> {
        Ok(Api::namespaced(self.kubernetes.client().await?, &self.namespace))
    }

    /// Creates a pod of this JSON; what the API server made of it.
    pub(super) async fn create(&self, pod: Value) -> Result<Value> {
        create(&self.pods().await?, pod).await
    }

    /// Creates the StatefulSet that Fluid makes for a runtime; the pod that its controller would make.
    pub(super) async fn master(&self, runtime: &str) -> Result<Value> {
        let set = FLUID.replace("hbase", runtime);
        let (set, namespace) = (
            set.replace("\n  labels:", &format!("\n  namespace: {}\n  labels:", self.namespace)),
            &self.namespace,
        );
        self.kubernetes.apply(&set).await?;
        pod_of(self.kubernetes, namespace, &format!("{runtime}-master")).await
    }

    pub(super) async fn delete(&self, pod: &str) -> Result<()> {
        let pods = self.pods().await?;
        pods.delete(pod, &DeleteParams::default().grace_period(0)).await?;
        wait::until("the pod to be gone", wait::LIMIT, async || {
            Ok(pods.get_opt(pod).await?.is_none().then_some(()))
        })
        .await
    }
}

pub(super) async fn create(pods: &Api<Pod>, pod: Value) -> Result<Value> {
    let pod: Pod = serde_json::from_value(pod).context("a pod")?;
    Ok(serde_json::to_value(pods.create(&PostParams::default(), &pod).await.context("create a pod")?)?)
}

/// The first pod of a StatefulSet, as the StatefulSet controller, which does not run here, makes it.
pub(super) async fn pod_of(kubernetes: &Kubernetes, namespace: &str, set: &str) -> Result<Value> {
    let sets: Api<StatefulSet> = Api::namespaced(kubernetes.client().await?, namespace);
    let set = sets.get(set).await?;
    let name = format!("{}-0", set.name_any());
    let template = serde_json::to_value(set.spec.as_ref().map(|spec| &spec.template).context("a spec")?)?;
    let mut pod = json!({ "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(name);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid(),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    pod["spec"]["hostname"] = json!(name);
    pod["metadata"]["name"] = json!(name);
    Ok(pod)
}

/// A master that may run anywhere.
pub(super) fn modest_master(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "role": "alluxio-master" } },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "alluxio-master", "image": "alluxio",
                "securityContext": {
                    "runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

/// Names of the containers of one kind.
pub(super) fn names(pod: &Value, key: &str) -> Vec<String> {
    let containers = pod["spec"][key].as_array().into_iter().flatten();
    containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
}

pub(super) fn container<'a>(pod: &'a Value, name: &str) -> Result<&'a Value> {
    let all = ["initContainers", "containers"].iter().flat_map(|key| pod["spec"][key].as_array());
    let found = all.flatten().find(|container| container["name"] == name);
    found.with_context(|| format!("no container {name} in {}", pod["spec"]))
}

pub(super) fn port(pod: &Value) -> Result<u16> {
    let port = pod["metadata"]["annotations"][PORT].as_str().context("an annotation with the port")?;
    Ok(port.parse()?)
}
