//! From the objects of the API server to the facts that a plan depends on. Reads caches only.

use k8s_openapi::api::{apps::v1 as apps, core::v1 as core};
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{
    gates::{self, Cluster, Endpoint, Gate, Pod, StatefulSet},
    reconcile::Settings,
};
use crate::{
    api::{AlluxioRuntime, RuntimeKind, RuntimeRef},
    credentials::{Identity, injected_by},
    runtime::plan::Schema,
    stores::Stores,
};

/// Looks at the clusters of one namespace.
#[derive(Clone, Copy)]
pub(super) struct Observer<'a> {
    pub(super) stores: &'a Stores,
    pub(super) namespace: &'a str,
    pub(super) settings: &'a Settings,
}

impl Observer<'_> {
    /// The Alluxio cluster that a Preload names.
    pub(super) fn cluster(&self, reference: &RuntimeRef) -> Cluster {
        let name = reference.name.as_str();
        match reference.kind {
            RuntimeKind::StatefulSet => {
                let stem = name.strip_suffix("-master").unwrap_or(name);
                let workers = reference.workers.clone().unwrap_or_else(|| format!("{stem}-worker"));
                match self.set(name) {
                    Some(_) => self.of_sets(name, &workers),
                    None => {
                        let message =
                            format!("there is no StatefulSet {name} with the label role=alluxio-master");
                        self.missing(name, "MasterMissing", &message)
                    }
                }
            }
            RuntimeKind::AlluxioRuntime => {
                let masters = format!("{name}-master");
                let runtime = self.stores.runtimes.get(&ObjectRef::new(name).within(self.namespace));
                match (self.stores.schema, runtime) {
                    (Schema::Missing, _) => {
                        self.missing(&masters, "RuntimeMissing", "this Kubernetes has no AlluxioRuntimes")
                    }
                    (_, None) => self.missing(
                        &masters,
                        "RuntimeMissing",
                        &format!("there is no AlluxioRuntime {name}"),
                    ),
                    (Schema::Standalone, Some(_)) => self.of_sets(&masters, &format!("{name}-worker")),
                    (Schema::Stock | Schema::Patched, Some(runtime)) => self.of_fluid(&masters, &runtime),
                }
            }
        }
    }

    /// The pod may still be there, with a load to cancel.
    fn missing(&self, masters: &str, reason: &'static str, message: &str) -> Cluster {
        let (pod_name, pod) = self.first_pod(masters);
        let sidecar = self.sidecar(masters, &pod_name, pod.as_ref());
        Cluster { sidecar, pod_uid: pod.map(|pod| pod.uid), ..Cluster::missing(reason, message) }
    }

    fn of_fluid(&self, masters: &str, runtime: &AlluxioRuntime) -> Cluster {
        let status = runtime.status.clone().unwrap_or_default();
        let (pod_name, pod) = self.first_pod(masters);
        Cluster {
            sidecar: self.sidecar(masters, &pod_name, pod.as_ref()),
            master: gates::master(&pod_name, pod.as_ref(), Some(&status)),
            workers: gates::fluid_workers(&runtime.spec, &status),
            pod_uid: pod.map(|pod| pod.uid),
            mount_time: status.mount_time,
        }
    }

    fn of_sets(&self, masters: &str, workers: &str) -> Cluster {
        let (pod_name, pod) = self.first_pod(masters);
        Cluster {
            sidecar: self.sidecar(masters, &pod_name, pod.as_ref()),
            master: gates::master(&pod_name, pod.as_ref(), None),
            workers: gates::stateful_set_workers(workers, self.set(workers).as_ref()),
            pod_uid: pod.map(|pod| pod.uid),
            mount_time: None,
        }
    }

    /// A sidecar proves by its certificate that it belongs to this cluster.
    fn sidecar(&self, masters: &str, pod_name: &str, pod: Option<&Pod>) -> Gate<Endpoint> {
        gates::sidecar(pod_name, pod, self.settings.discovery, Identity::new(self.namespace, masters))
    }

    /// The pod whose sidecar is asked: that of the first master, where Fluid runs its own commands too.
    fn first_pod(&self, masters: &str) -> (String, Option<Pod>) {
        let name = format!("{masters}-0");
        let pod = self.stores.pods.get(&ObjectRef::new(&name).within(self.namespace));
        (name, pod.map(|pod| read_pod(&pod, &self.settings.port_annotation)))
    }

    fn set(&self, name: &str) -> Option<StatefulSet> {
        self.stores.sets.get(&ObjectRef::new(name).within(self.namespace)).map(|set| read_set(&set))
    }
}

fn read_pod(pod: &core::Pod, port_annotation: &str) -> Pod {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let port = pod.annotations().get(port_annotation);
    Pod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
        port: port.map(|text| text.parse().ok().filter(|port| *port > 0).ok_or_else(|| text.clone())),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        injected_by: injected_by(pod).map(|owner| owner.uid),
    }
}

fn read_set(set: &apps::StatefulSet) -> StatefulSet {
    let status = set.status.as_ref();
    StatefulSet {
        // The API server fills in 1.
        desired: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        observed: status.and_then(|status| status.observed_generation) >= set.metadata.generation,
    }
}
