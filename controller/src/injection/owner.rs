//! Who owns a pod, and so what the Secret of its sidecar is called and which port it gets.

use serde_json::Value;

use super::{items, text};

/// Whose sidecar it is, for pods that take each other's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `NAME-preload`: of the pod's StatefulSet, Deployment or other controller, else of the pod itself.
    pub secret: String,
    /// Where its port is looked for first.
    pub port_key: String,
}

impl Owner {
    /// Of a pod with the references that its controller has set.
    #[must_use]
    pub fn of_pod(namespace: &str, pod: &Value) -> Self {
        let stem = stem(pod);
        // Only pods of a StatefulSet keep their names.
        let name = match credentials_owner(pod) {
            Some(_) => text(pod, &["metadata", "name"]).unwrap_or(stem),
            None => stem,
        };
        Self { secret: secret(stem), port_key: format!("{namespace}/{name}") }
    }

    /// Of the pods that a controller, such as a StatefulSet, makes of its template.
    #[must_use]
    pub fn of_template(namespace: &str, kind: &str, name: &str) -> Self {
        let ordinal = if kind == "StatefulSet" { "-0" } else { "" };
        Self { secret: secret(name), port_key: format!("{namespace}/{name}{ordinal}") }
    }
}

fn secret(stem: &str) -> String {
    format!("{stem}-preload")
}

fn stem(pod: &Value) -> &str {
    match controller(pod) {
        Some(owner) => {
            let name = text(owner, &["name"]).unwrap_or_default();
            // A ReplicaSet is new with every revision of its Deployment; the name must not be.
            let revision = match text(owner, &["kind"]) {
                Some("ReplicaSet") => text(pod, &["metadata", "labels", "pod-template-hash"]),
                _ => None,
            };
            let stem = revision.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
            stem.unwrap_or(name)
        }
        None => {
            let name = |key| text(pod, &["metadata", key]).filter(|name| !name.is_empty());
            name("name").or_else(|| name("generateName")).unwrap_or_default().trim_end_matches(['-', '.'])
        }
    }
}

/// The StatefulSet that owns the pod: the only owner whose credentials the controller makes.
#[must_use]
pub fn credentials_owner(pod: &Value) -> Option<&Value> {
    controller(pod).filter(|owner| {
        let group = text(owner, &["apiVersion"]).and_then(|version| version.split_once('/'));
        text(owner, &["kind"]) == Some("StatefulSet") && group.is_some_and(|(group, _)| group == "apps")
    })
}

fn controller(pod: &Value) -> Option<&Value> {
    let owners = items(&pod["metadata"], "ownerReferences");
    owners.iter().find(|owner| owner["controller"] == Value::Bool(true))
}
