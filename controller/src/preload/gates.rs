//! What must be true before a load is started, judged from the objects of the API server. Pure.
//!
//! Fluid's own condition WorkersReady is not asked: it is true for PartialReady and for no workers at all.

use crate::{
    api::{AlluxioRuntimeSpec, AlluxioRuntimeStatus},
    credentials::{Identity, Owner},
};

/// Open with what was found, or shut with a reason for programs and a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate<T> {
    Open(T),
    Shut { reason: &'static str, message: String },
}

impl<T> Gate<T> {
    pub fn shut(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Shut { reason, message: message.into() }
    }

    #[must_use]
    pub fn open(&self) -> Option<&T> {
        match self {
            Self::Open(found) => Some(found),
            Self::Shut { .. } => None,
        }
    }
}

/// The pod of the first master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub ip: Option<String>,
    /// From an annotation of the pod, or its unreadable text; None: the default port.
    pub port: Option<Result<u16, String>>,
    pub ready: bool,
    pub terminating: bool,
    /// Uid of its StatefulSet, if its sidecar was injected: then it mounts the Secret that we write.
    pub injected_by: Option<String>,
}

/// Where the sidecar is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub pod: String,
    pub pod_uid: String,
    pub ip: String,
    pub port: u16,
    /// Whom the sidecar's certificate must name.
    pub identity: Identity,
    /// Uid of that StatefulSet, if the sidecar has its certificate and tokens from a Secret of ours.
    pub injected_by: Option<String>,
}

impl Endpoint {
    /// Whose Secret it mounts; None: the operator has brought other credentials.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        let uid = self.injected_by.clone()?;
        Some(Owner { identity: self.identity.clone(), uid })
    }
}

/// An Alluxio cluster as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The pod whose sidecar can be asked, whether or not the other gates are open.
    pub sidecar: Gate<Endpoint>,
    pub master: Gate<()>,
    /// With the number of workers wished for.
    pub workers: Gate<u32>,
    /// Uid of the master's pod, ready or not; None: there is none.
    pub pod_uid: Option<String>,
    pub mount_time: Option<String>,
}

impl Cluster {
    /// Of a cluster that does not exist, or whose kind does not.
    #[must_use]
    pub fn missing(reason: &'static str, message: &str) -> Self {
        Self {
            sidecar: Gate::shut(reason, message),
            master: Gate::shut(reason, message),
            workers: Gate::shut(reason, message),
            pod_uid: None,
            mount_time: None,
        }
    }
}

/// How sidecars are found.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    /// Where the pod has no annotation.
    pub default_port: u16,
    /// Only those that were injected have the credentials that we write.
    pub injected_only: bool,
}

/// The sidecar in a master's pod, reachable or not.
#[must_use]
pub fn sidecar(
    pod_name: &str,
    pod: Option<&Pod>,
    discovery: Discovery,
    identity: Identity,
) -> Gate<Endpoint> {
    let Some(pod) = pod else { return missing_pod(pod_name) };
    if discovery.injected_only && pod.injected_by.is_none() {
        return Gate::shut(
            "NotInjected",
            format!(
                "pod {pod_name} has no injected sidecar: it was made before the webhook served, or where the \
                 namespace had no label preload.dev/enabled=true; it gets one when it is made anew \
                 (kubectl delete pod {pod_name}: Alluxio's cache is then loaded anew)"
            ),
        );
    }
    let port = match &pod.port {
        None => discovery.default_port,
        Some(Ok(port)) => *port,
        Some(Err(text)) => {
            return Gate::shut(
                "BadPort",
                format!(
                    "the annotation of pod {pod_name} for the sidecar's port is {text:?}; give 1 to 65535"
                ),
            );
        }
    };
    match &pod.ip {
        Some(_) if pod.terminating => {
            Gate::shut("PodTerminating", format!("pod {pod_name} is being deleted"))
        }
        Some(ip) => Gate::Open(Endpoint {
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            ip: ip.clone(),
            port,
            identity,
            injected_by: pod.injected_by.clone(),
        }),
        None => Gate::shut("PodNotRunning", format!("pod {pod_name} has no address yet")),
    }
}

fn missing_pod<T>(name: &str) -> Gate<T> {
    Gate::shut("PodMissing", format!("there is no pod {name} with the label role=alluxio-master"))
}

/// The first master is ready; for Fluid the runtime must say so too.
#[must_use]
pub fn master(pod_name: &str, pod: Option<&Pod>, fluid: Option<&AlluxioRuntimeStatus>) -> Gate<()> {
    if let Some(status) = fluid {
        match status.master_phase.as_deref() {
            Some("Ready") => {}
            None | Some("") => {
                return Gate::shut("MasterNotReady", "Fluid has not reported on the master yet");
            }
            Some(phase) => {
                return Gate::shut("MasterNotReady", format!("Fluid says that the master is {phase}"));
            }
        }
    }
    match pod {
        None => missing_pod(pod_name),
        Some(pod) if pod.terminating => {
            Gate::shut("PodTerminating", format!("pod {pod_name} is being deleted"))
        }
        Some(pod) if !pod.ready => Gate::shut("PodNotReady", format!("pod {pod_name} is not ready")),
        Some(_) => Gate::Open(()),
    }
}

/// All workers that Fluid was asked for are ready.
#[must_use]
pub fn fluid_workers(spec: &AlluxioRuntimeSpec, status: &AlluxioRuntimeStatus) -> Gate<u32> {
    let phase = status.worker_phase.as_deref().unwrap_or_default();
    let desired = status.desired_worker_number_scheduled.unwrap_or(0);
    let ready = status.worker_number_ready.unwrap_or(0);
    if phase.is_empty() {
        return Gate::shut("WorkersNotReady", "Fluid has not reported on the workers yet");
    }
    let wished = spec.replicas.unwrap_or(desired);
    if desired != wished {
        return Gate::shut("Scaling", format!("{wished} workers are wished for, Fluid is at {desired}"));
    }
    match phase {
        "Ready" => counted(ready, desired),
        phase => Gate::shut(
            if phase == "PartialReady" { "PartialReady" } else { "WorkersNotReady" },
            format!("{ready} of {desired} workers are ready; Fluid says {phase}"),
        ),
    }
}

/// All workers of a StatefulSet are ready. Its status must speak of its present spec.
#[must_use]
pub fn stateful_set_workers(name: &str, set: Option<&StatefulSet>) -> Gate<u32> {
    match set {
        None => Gate::shut(
            "WorkersMissing",
            format!("there is no StatefulSet {name} with the label role=alluxio-worker"),
        ),
        Some(set) if !set.observed => {
            Gate::shut("Scaling", format!("the change of StatefulSet {name} has not been taken up yet"))
        }
        Some(set) => counted(set.ready, set.desired),
    }
}

/// What matters of a StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatefulSet {
    pub desired: i32,
    pub ready: i32,
    /// status.observedGeneration is that of the spec.
    pub observed: bool,
}

fn counted(ready: i32, desired: i32) -> Gate<u32> {
    match u32::try_from(desired) {
        Ok(0) | Err(_) => Gate::shut("NoWorkers", "no workers are wished for"),
        Ok(workers) if ready >= desired => Gate::Open(workers),
        Ok(_) => Gate::shut("WorkersNotReady", format!("{ready} of {desired} workers are ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Data;

    const DISCOVERY: Discovery = Discovery { default_port: 29700, injected_only: false };

    fn pod() -> Pod {
        Pod {
            name: "h-master-0".into(),
            uid: "u".into(),
            ip: Some("10.0.0.1".into()),
            port: None,
            ready: true,
            terminating: false,
            injected_by: None,
        }
    }

    fn reason<T>(gate: Gate<T>) -> &'static str {
        match gate {
            Gate::Open(_) => "open",
            Gate::Shut { reason, .. } => reason,
        }
    }

    #[test]
    fn workers_of_fluid_are_ready_only_when_all_are() {
        let gate = |phase: &str, ready, desired, wished| {
            let spec = AlluxioRuntimeSpec { replicas: wished, data: Data::default() };
            let status = AlluxioRuntimeStatus {
                worker_phase: Some(phase.to_owned()).filter(|phase| phase != "unset"),
                worker_number_ready: Some(ready),
                desired_worker_number_scheduled: Some(desired),
                ..Default::default()
            };
            reason(fluid_workers(&spec, &status))
        };
        assert_eq!(gate("Ready", 2, 2, Some(2)), "open");
        assert_eq!(gate("Ready", 2, 2, None), "open");
        assert_eq!(gate("PartialReady", 1, 2, Some(2)), "PartialReady");
        assert_eq!(gate("PartialReady", 2, 2, Some(2)), "PartialReady");
        assert_eq!(gate("Ready", 1, 2, Some(2)), "WorkersNotReady", "the phase is older than the number");
        assert_eq!(gate("Ready", 0, 0, Some(0)), "NoWorkers");
        assert_eq!(gate("Ready", 0, 0, None), "NoWorkers");
        assert_eq!(gate("Ready", 2, 2, Some(3)), "Scaling");
        assert_eq!(gate("Ready", 3, 3, Some(2)), "Scaling");
        assert_eq!(gate("NotReady", 0, 2, Some(2)), "WorkersNotReady");
        assert_eq!(gate("", 2, 2, Some(2)), "WorkersNotReady");
        assert_eq!(gate("unset", 2, 2, Some(2)), "WorkersNotReady");
        assert_eq!(gate("Ready", 2, -1, Some(-1)), "NoWorkers");
    }

    #[test]
    fn workers_of_a_stateful_set_are_counted_once_its_status_is_current() {
        let gate = |desired, ready, observed| {
            reason(stateful_set_workers("w", Some(&StatefulSet { desired, ready, observed })))
        };
        assert_eq!(gate(2, 2, true), "open");
        assert_eq!(gate(2, 1, true), "WorkersNotReady");
        assert_eq!(gate(0, 0, true), "NoWorkers");
        assert_eq!(gate(2, 2, false), "Scaling");
        assert_eq!(reason(stateful_set_workers("w", None)), "WorkersMissing");
    }

    #[test]
    fn the_master_needs_fluid_and_its_pod() {
        let fluid =
            |phase: &str| AlluxioRuntimeStatus { master_phase: Some(phase.into()), ..Default::default() };
        let ready = fluid("Ready");
        assert_eq!(reason(master("m", Some(&pod()), Some(&ready))), "open");
        assert_eq!(reason(master("m", Some(&pod()), None)), "open");
        for phase in ["", "NotReady", "PartialReady"] {
            assert_eq!(reason(master("m", Some(&pod()), Some(&fluid(phase)))), "MasterNotReady");
        }
        assert_eq!(
            reason(master("m", Some(&pod()), Some(&AlluxioRuntimeStatus::default()))),
            "MasterNotReady"
        );
        assert_eq!(reason(master("m", None, Some(&ready))), "PodMissing");
        assert_eq!(reason(master("m", Some(&Pod { ready: false, ..pod() }), Some(&ready))), "PodNotReady");
        assert_eq!(
            reason(master("m", Some(&Pod { terminating: true, ..pod() }), Some(&ready))),
            "PodTerminating"
        );
    }

    #[test]
    fn the_port_is_that_of_the_annotation() {
        let endpoint = |pod: &Pod| sidecar("m", Some(pod), DISCOVERY, Identity::new("ns", "m"));
        assert_eq!(endpoint(&pod()).open().unwrap().port, 29700);
        assert_eq!(endpoint(&Pod { port: Some(Ok(1234)), ..pod() }).open().unwrap().port, 1234);
        let bad = endpoint(&Pod { port: Some(Err("x".into())), ..pod() });
        assert!(matches!(&bad, Gate::Shut { message, .. } if message.contains("1 to 65535")), "{bad:?}");
        assert_eq!(reason(endpoint(&Pod { ip: None, ..pod() })), "PodNotRunning");
        assert_eq!(reason(endpoint(&Pod { terminating: true, ..pod() })), "PodTerminating");
        assert_eq!(reason(sidecar("m", None, DISCOVERY, Identity::new("ns", "m"))), "PodMissing");
        let injected_only = Discovery { injected_only: true, ..DISCOVERY };
        let injected = Pod { injected_by: Some("uid".into()), ..pod() };
        let of = |pod: &Pod| sidecar("m", Some(pod), injected_only, Identity::new("ns", "m"));
        assert_eq!(reason(of(&pod())), "NotInjected");
        assert_eq!(of(&injected).open().and_then(Endpoint::owner).map(|owner| owner.uid), Some("uid".into()));
    }
}
