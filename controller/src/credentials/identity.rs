//! What a sidecar is known by: the StatefulSet of its master. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Annotation of a pod whose sidecar was injected, with the version of what was injected.
pub const INJECTED: &str = "preload.dev/injected";

/// A StatefulSet of masters: all of its sidecars share a certificate and tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub namespace: String,
    pub stateful_set: String,
}

/// The StatefulSet as an object: its Secret goes when it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    pub identity: Identity,
    pub uid: String,
}

impl Identity {
    #[must_use]
    pub fn new(namespace: &str, stateful_set: &str) -> Self {
        Self { namespace: namespace.to_owned(), stateful_set: stateful_set.to_owned() }
    }

    /// What the sidecar's certificate names.
    #[must_use]
    pub fn server_name(&self) -> String {
        format!("{}.{}.preload.dev", self.stateful_set, self.namespace)
    }

    /// The Secret that the pods mount, in the namespace of the StatefulSet.
    #[must_use]
    pub fn secret_name(&self) -> String {
        format!("{}-preload", self.stateful_set)
    }
}

/// The StatefulSet whose Secret a pod mounts; None: its sidecar was not injected, or it has no such owner.
#[must_use]
pub fn injected_by(pod: &Pod) -> Option<Owner> {
    if !pod.annotations().contains_key(INJECTED) {
        return None;
    }
    let owner = pod.owner_references().iter().find(|owner| owner.kind == "StatefulSet")?;
    let identity = Identity::new(&pod.namespace()?, &owner.name);
    Some(Owner { identity, uid: owner.uid.clone() })
}
