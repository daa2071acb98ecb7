//! The rights that `deploy/base/rbac.yaml` grants, for the controllers of tests: they may do what the one of users
//! may, and nothing else.
//!
//! They are another account than `preload-controller`, whose use of its rights one test looks at.

use crate::kubernetes::Kubernetes;
use crate::wait;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const SYSTEM: &str = "preload-system";
const ACCOUNT: &str = "controller-of-tests";
const ROLE: &str = "preload-controller";

/// Documents of the file.
fn documents() -> Result<Vec<Value>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/rbac.yaml");
    serde_saphyr::from_multiple(&fs::read_to_string(path).context("read rbac.yaml")?)
        .context("read rbac.yaml")
}

fn binding(kind: &str, role: &str, namespace: Option<&str>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": ACCOUNT, "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": ROLE },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM }],
    })
}

/// Grants the ClusterRole; a kubeconfig for the account.
pub(crate) async fn grant(kubernetes: &Kubernetes) -> Result<PathBuf> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } });
    let role = documents()?.into_iter().find(|document| document["kind"] == "ClusterRole");
    for object in
        [namespace, role.context("a ClusterRole")?, binding("ClusterRoleBinding", "ClusterRole", None)]
    {
        kubernetes.apply(&object.to_string()).await?;
    }
    kubernetes.service_account_kubeconfig(SYSTEM, ACCOUNT).await
}

/// Grants the Role in a namespace, where a test's controller has its lease, and waits until it counts.
pub(crate) async fn grant_in(kubernetes: &Kubernetes, namespace: &str) -> Result<()> {
    let role = documents()?.into_iter().find(|document| document["kind"] == "Role");
    let mut role = role.context("a Role")?;
    role["metadata"]["namespace"] = json!(namespace);
    for object in [role, binding("RoleBinding", "Role", Some(namespace))] {
        kubernetes.apply(&object.to_string()).await?;
    }
    let user = format!("--as=system:serviceaccount:{SYSTEM}:{ACCOUNT}");
    let question = ["auth", "can-i", "update", "leases/preload-controller", "-n", namespace, &user];
    wait::until("the rights to count", wait::LIMIT, async || {
        Ok(kubernetes.kubectl(&question).await?.exit.success().then_some(()))
    })
    .await
}
