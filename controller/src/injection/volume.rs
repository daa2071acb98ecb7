//! The volumes of a sidecar.

use serde_json::{Value, json};

use super::{Placement, items, text};

/// The program, as the init container leaves it.
pub(super) const BIN: &str = "preload-bin";
/// Jobs; a restart of the container keeps them, a new pod has a new Alluxio anyway.
pub(super) const STATE: &str = "preload-state";
pub(super) const CREDENTIALS: &str = "preload-credentials";
/// Lies where admission would put the token of the pod's ServiceAccount.
pub(super) const NO_TOKEN: &str = "preload-no-token";
pub(super) const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Without it Kubernetes gives a token to every container, also to those that webhooks add.
pub(super) fn hides_token(pod: &Value) -> bool {
    pod["spec"]["automountServiceAccountToken"] != Value::Bool(false)
}

/// Those that the pod does not have: one of ours that is there, such as a claim for the state, is used as it is.
pub(super) fn missing(pod: &Value, placement: Placement<'_>) -> Vec<Value> {
    let mut wanted = vec![
        json!({ "name": BIN, "emptyDir": {} }),
        json!({ "name": STATE, "emptyDir": {} }),
        // Optional: the master must start without it, too.
        json!({ "name": CREDENTIALS, "secret": { "secretName": placement.secret, "optional": true } }),
    ];
    if hides_token(pod) {
        wanted.push(json!({ "name": NO_TOKEN, "emptyDir": {} }));
    }
    let there: Vec<_> =
        items(&pod["spec"], "volumes").iter().filter_map(|volume| text(volume, &["name"])).collect();
    wanted.retain(|volume| {
        let name = volume["name"].as_str().unwrap_or_default();
        !there.contains(&name) && !placement.claims.contains(&name)
    });
    wanted
}
