//! The harness of Kubernetes itself: a test that cannot trust it proves nothing.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams};
use nix::sys::signal::Signal;
use preload_tests::{
    Exit, Kubernetes, KubernetesOptions, Part, kubernetes, prerequisites, shared_kubernetes, wait,
};
use serde_json::{Value, json};
use std::net::TcpListener;

const CONFIG_MAP: &str = "apiVersion: v1
kind: ConfigMap
";

async fn apply_config_map(kubernetes: &Kubernetes, namespace: &str, name: &str, rest: &str) -> Result<()> {
    kubernetes.apply(&format!("{CONFIG_MAP}metadata: {{namespace: {namespace}, name: {name}}}\n{rest}")).await
}

async fn config_map(client: &Client, namespace: &str, name: &str) -> Result<Option<ConfigMap>> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    maps.get_opt(name).await.with_context(|| format!("get {namespace}/{name}"))
}

#[tokio::test]
async fn kubectl_speaks_to_a_server_of_the_wished_version() -> Result<()> {
    let kubernetes = shared_kubernetes().await?;
    let said = kubernetes.kubectl(&["version", "--output", "json"]).await?.success()?;
    let version: Value = serde_json::from_str(&said)?;
    assert_eq!(version["serverVersion"]["gitVersion"], format!("v{}", prerequisites::KUBERNETES), "{said}");

    let namespace = kubernetes.namespace("version", &[("colour", "blue")]).await?;
    let arguments = ["get", "namespaces", "--selector", "colour=blue", "--output", "name"];
    let listed = kubernetes.kubectl(&arguments).await?.success()?;
    assert!(listed.contains(&namespace), "{listed}");
    let strict =
        apply_config_map(kubernetes, &namespace, "odd", "datum: {}").await.expect_err("no such field");
    assert!(format!("{strict:#}").contains("datum"), "{strict:#}");
    Ok(())
}

#[tokio::test]
async fn what_a_service_account_without_roles_asks_is_refused_and_in_the_audit_log() -> Result<()> {
    let kubernetes = shared_kubernetes().await?;
    let namespace = kubernetes.namespace("audit", &[]).await?;
    let kubeconfig = kubernetes.service_account_kubeconfig(&namespace, "nobody").await?;
    let client = kubernetes::client(&kubeconfig).await?;
    let refused = config_map(&client, &namespace, "some").await.expect_err("it has no role");
    assert!(format!("{refused:#}").contains("is forbidden"), "{refused:#}");

    let user = format!("system:serviceaccount:{namespace}:nobody");
    let event = wait::until("the refusal in the audit log", wait::LIMIT, async || {
        let mut events = kubernetes.audit()?;
        events.retain(|event| event.user == user);
        assert!(events.len() < 2, "one request is two events: {events:?}");
        Ok(events.pop())
    })
    .await?;
    assert_eq!((event.verb.as_str(), event.code), ("get", 403), "{event:?}");
    assert_eq!(
        (&*event.group, &*event.resource, &*event.namespace, &*event.name),
        ("", "configmaps", &*namespace, "some")
    );

    let subject = format!("{namespace}:nobody");
    let bind = ["create", "rolebinding", "sees", "--clusterrole=view", "--serviceaccount", &subject];
    kubernetes.kubectl(&[&bind[..], &["--namespace", &namespace]].concat()).await?.success()?;
    let again =
        kubernetes::client(&kubernetes.service_account_kubeconfig(&namespace, "nobody").await?).await?;
    wait::until("the role to count", wait::LIMIT, async || {
        config_map(&again, &namespace, "some").await.map(|found| found.is_none().then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() -> Result<()> {
    let kubernetes = shared_kubernetes().await?;
    let namespace = kubernetes.namespace("owner", &[]).await?;
    let client = kubernetes.client().await?;
    apply_config_map(kubernetes, &namespace, "owner", "").await?;
    let owner = config_map(&client, &namespace, "owner").await?.context("the owner")?;
    let reference = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
    }]);
    for (name, metadata) in [("owned", format!(", ownerReferences: {reference}")), ("free", String::new())] {
        let metadata = format!("metadata: {{namespace: {namespace}, name: {name}{metadata}}}\n");
        kubernetes.apply(&format!("{CONFIG_MAP}{metadata}")).await?;
    }

    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    maps.delete("owner", &DeleteParams::default()).await?;
    wait::until("the owned object to go", wait::LIMIT, async || {
        Ok(config_map(&client, &namespace, "owned").await?.is_none().then_some(()))
    })
    .await?;
    assert!(config_map(&client, &namespace, "free").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_killed_api_server_keeps_its_objects_and_two_control_planes_do_not_meet() -> Result<()> {
    let (shared, own) =
        tokio::try_join!(shared_kubernetes(), Kubernetes::start(KubernetesOptions::default()))?;
    let namespace = own.namespace("killed", &[]).await?;
    apply_config_map(&own, &namespace, "kept", "data: {key: value}").await?;
    let kubeconfig = own.service_account_kubeconfig(&namespace, "one").await?;

    assert_eq!(own.kill(Part::ApiServer, Signal::SIGKILL).await?, Exit::Signal(9));
    let client = own.client().await?;
    config_map(&client, &namespace, "kept").await.expect_err("nobody listens");
    let elsewhere = config_map(&shared.client().await?, &namespace, "kept").await?;
    assert!(elsewhere.is_none(), "the shared one has it: {elsewhere:?}");

    let occupied = TcpListener::bind(own.address())?;
    let failed = format!("{:#}", own.start_part(Part::ApiServer).await.expect_err("its port is taken"));
    assert!(failed.contains("kube-apiserver has ended") && failed.contains("already in use"), "{failed}");
    drop(occupied);
    own.start_part(Part::ApiServer).await?;
    let kept = config_map(&client, &namespace, "kept").await?.context("the object")?;
    assert_eq!(kept.data.context("its data")?["key"], "value");
    // The token is still known: refused for want of a role, not for want of a name.
    let refused = config_map(&kubernetes::client(&kubeconfig).await?, &namespace, "kept").await;
    let refused = format!("{:#}", refused.expect_err("it has no role"));
    assert!(refused.contains("is forbidden"), "{refused}");

    assert_eq!(own.kill(Part::Etcd, Signal::SIGKILL).await?, Exit::Signal(9));
    own.start_part(Part::Etcd).await?;
    assert!(config_map(&client, &namespace, "kept").await?.is_some());
    let directory = own.sandbox().directory().to_owned();
    drop(own);
    assert!(!directory.exists(), "{} is left", directory.display());
    shared.client().await?.apiserver_version().await?;
    Ok(())
}
