//! `preload-controller inject`: the same sidecar without the webhook.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use preload_tests::{Exit, Output, Sandbox, leash, shared_fluid, wait};
use serde_json::Value;

use super::world::{FLUID, IMAGE, World, container, create, pod_of};

/// Runs it with this standard input.
async fn inject(sandbox: &Sandbox, namespace: &str, yaml: &str) -> Result<Output> {
    let file = sandbox.folder("inject")?.join("in.yaml");
    fs::write(&file, yaml)?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" inject --namespace \"$1\" --sidecar-image \"$2\" < \"$3\""]);
    command.arg(leash::sibling("preload-controller")?).args([namespace, IMAGE]).arg(&file);
    sandbox.run(&command, wait::LIMIT).await
}

/// A pod without what differs from one pod to another.
fn essence(mut pod: Value) -> Value {
    for key in ["initContainers", "containers"] {
        for container in pod["spec"][key].as_array_mut().into_iter().flatten() {
            sort(&mut container["volumeMounts"]);
        }
    }
    sort(&mut pod["spec"]["volumes"]);
    let annotations = pod["metadata"]["annotations"].clone();
    serde_json::json!({ "spec": pod["spec"], "annotations": annotations })
}

/// The volume with the token has a name of its own in every pod, and is added at another time.
fn sort(items: &mut Value) {
    for item in items.as_array_mut().into_iter().flatten() {
        if item["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")) {
            item["name"] = "kube-api-access".into();
        }
    }
    if let Some(items) = items.as_array_mut() {
        items.sort_by_key(|item| item.to_string());
    }
}

/// A template that was injected by hand leads to the pod that the webhook makes, and the webhook leaves it alone.
#[tokio::test]
async fn by_hand_as_by_the_webhook() -> Result<()> {
    let world = World::new("byhand").await?;
    let by_webhook = world.create(world.master("hbase").await?).await?;
    container(&by_webhook, "preload-sidecar")?;
    world.delete("hbase-master-0").await?;

    let done = inject(world.kubernetes.sandbox(), &world.namespace, FLUID).await?;
    ensure!(done.stderr.contains("hbase-master: sidecar added (gRPC port "), "{}", done.stderr);
    let yaml = done.success()?;
    let file = world.kubernetes.sandbox().folder("byhand")?.join("out.yaml");
    fs::write(&file, yaml)?;
    let file = file.to_string_lossy();
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "-n",
        &world.namespace,
        "-f",
        &file,
    ];
    world.kubernetes.kubectl(&arguments).await?.success()?;
    let pod = pod_of(world.kubernetes, &world.namespace, "hbase-master").await?;
    let by_hand = world.create(pod).await?;
    let (by_hand, by_webhook) = (essence(by_hand), essence(by_webhook));
    ensure!(by_hand == by_webhook, "{by_hand}\nbut the webhook makes\n{by_webhook}");
    world.controller.assert_no_errors()
}

/// Everything that it prints is accepted as it is, in a namespace without a webhook.
#[tokio::test]
async fn every_document_is_accepted() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("documents", &[]).await?;
    let master = "{ containers: [{ name: m, image: i }] }";
    let template = |more: &str| {
        format!("{{ metadata: {{ labels: {{ role: alluxio-master }} }}, spec: {master} {more} }}")
    };
    let of = |kind: &str, name: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec:\n  selector: {{ matchLabels: {{ role: alluxio-master }} }}\n  template: {}\n",
            template("")
        )
    };
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{ apiVersion: v1, kind: Pod, metadata: {{ name: solo, labels: {{ role: alluxio-master }} }}, spec: {master} }}\n- {{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: c }}, data: {{ a: 'yes', b: '0644', c: '1e3' }} }}\n"
    );
    let yaml = [
        "# First\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: first } # as it is\n".to_owned(),
        FLUID.to_owned(),
        of("Deployment", "deployment"),
        of("DaemonSet", "daemon"),
        list,
    ]
    .join("---\n");
    let done = inject(kubernetes.sandbox(), &namespace, &yaml).await?;
    ensure!(done.stderr.matches("sidecar added").count() == 4, "{}", done.stderr);
    let yaml = done.success()?;
    ensure!(
        yaml.starts_with(
            "# First\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: first } # as it is\n---\n"
        ),
        "{yaml}"
    );
    let file = kubernetes.sandbox().folder("documents")?.join("out.yaml");
    fs::write(&file, &yaml)?;
    let file = file.to_string_lossy();
    let arguments = ["create", "--validate=strict", "-n", &namespace, "-f", &file];
    let created = kubernetes.kubectl(&arguments).await?.success().context(yaml)?;
    for name in [
        "configmap/first",
        "statefulset.apps/hbase-master",
        "deployment.apps/deployment",
        "daemonset.apps/daemon",
        "pod/solo",
        "configmap/c",
    ] {
        ensure!(created.contains(&format!("{name} created")), "{created}");
    }
    let pods = kube::Api::namespaced(kubernetes.client().await?, &namespace);
    let pod = create(&pods, pod_of(kubernetes, &namespace, "hbase-master").await?).await?;
    container(&pod, "preload-sidecar").map(drop)
}

/// What is wrong is told, and nothing is printed.
#[tokio::test]
async fn what_cannot_be_injected() -> Result<()> {
    let sandbox = Sandbox::new()?;
    for (yaml, words) in [
        ("apiVersion: v1\nkind: Service\n", "role=alluxio-master"),
        ("", "nothing to inject"),
        ("a: 1\n---\nb: [\n", "line 3"),
    ] {
        let done = inject(&sandbox, "default", yaml).await?;
        ensure!(done.exit == Exit::Code(1) && done.stdout.is_empty(), "{done:?}");
        ensure!(done.stderr.contains(words), "{}", done.stderr);
    }
    Ok(())
}
