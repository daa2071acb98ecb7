//! Uninstalled as `docs/install.md` says, command by command: nothing is left but masters that run.

use crate::scene::{loaded, play};
use anyhow::{Context, Result, ensure};
use preload_tests::nodes::{alluxio, installation::NAME};
use preload_tests::{Nodes, wait};
use std::collections::BTreeSet;

const FILES: usize = 40;
/// The one of the commands that names a file.
const DELETE: &str = "kubectl delete -k deploy/overlays/fluid";
/// A master that is not of the overlay, in the middle of its life: what runs in it makes no difference here.
const OTHER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere, labels: {preload.dev/enabled: 'true'}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {namespace: elsewhere, name: hbase-master, labels: {role: alluxio-master}}
spec:
  serviceName: hbase-master
  selector: {matchLabels: {role: alluxio-master}}
  template:
    metadata: {labels: {role: alluxio-master}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: alluxio-master, image: 'busybox:1', command: [sleep, infinity]}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {namespace: elsewhere, name: hbase}
spec: {replicas: 1}
";

/// The commands of the chapter. Those after a remark, such as for Fluid alone, are not among them.
fn commands(chapter: &str) -> Result<Vec<String>> {
    let page = include_str!("../../docs/install.md");
    let (_, text) = page.split_once(&format!("\n## {chapter}\n")).context("no such chapter")?;
    let mut paragraphs = text.split("\n\n");
    let commands = paragraphs.find(|text| text.starts_with("    kubectl ")).context("no command")?;
    let without_remark =
        |line: &str| line.split_once('#').map_or(line, |(command, _)| command).trim().to_owned();
    Ok(commands.lines().map(without_remark).collect())
}

/// Everything that kubectl can list, as `KIND/NAME` with its labels, type and finalizers.
async fn everything(nodes: &Nodes) -> Result<BTreeSet<String>> {
    let kubernetes = nodes.kubernetes();
    let kinds = kubernetes.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await?.success()?;
    let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let row =
        "{range .items[*]}{.kind}/{.metadata.name} {.type} {.metadata.finalizers} {.metadata.labels}\n{end}";
    let get = ["get", &kinds.join(","), "-A", "--ignore-not-found", "-o", &format!("jsonpath={row}")];
    let rows = kubernetes.kubectl(&get).await?.success()?;
    Ok(rows.lines().map(str::to_owned).collect())
}

fn ours(row: &str) -> bool {
    let (name, value) = NAME.split_once('=').unwrap_or_default();
    row.contains(&format!("\"{name}\":\"{value}\"")) || row.contains("preload.dev/") || named(row)
}

fn named(row: &str) -> bool {
    let name = row.split(' ').next().unwrap_or_default();
    ["preload-system", "preload-controller", ".preload.dev", "-preload", "alluxioruntimes"]
        .iter()
        .any(|word| name.contains(word))
}

#[tokio::test]
async fn nothing_is_left() -> Result<()> {
    play(async |scene| {
        let kubernetes = scene.nodes.kubernetes();
        let name = "uninstall";
        scene.declare(name, FILES).await?;
        kubernetes.apply(OTHER).await?;
        scene.preloads.until(name, loaded(1)).await?;
        let rollout = ["rollout", "status", "-n", "elsewhere", "statefulset/hbase-master", "--timeout=100s"];
        kubernetes.kubectl(&rollout).await?.success()?;
        wait::until("the other's credentials and Preload", wait::LIMIT, async || {
            let get = ["get", "secret/hbase-master-preload", "preload/hbase", "-n", "elsewhere"];
            kubernetes.kubectl(&get).await?.success().map(Some)
        })
        .await?;
        let before = everything(scene.nodes).await?;
        let found: BTreeSet<_> = before.iter().filter(|row| ours(row)).collect();
        ensure!(found.len() > 15, "the test does not see what is there: {found:?}");

        let commands = commands("Uninstall")?;
        ensure!(commands.iter().any(|command| command.starts_with(DELETE)), "{commands:?}");
        for command in &commands {
            if command.starts_with(DELETE) {
                scene.installation.delete().await?.success()?;
                continue;
            }
            let arguments: Vec<_> = command.split_whitespace().skip(1).collect();
            let output = kubernetes.kubectl(&arguments).await?;
            println!("{command}: {}{}", output.stdout.trim_end(), output.stderr.trim_end());
            output.success().with_context(|| command.clone())?;
        }

        let left: BTreeSet<_> = everything(scene.nodes).await?.into_iter().filter(|row| ours(row)).collect();
        // A pod that was injected tells so, and goes on.
        let left: Vec<_> = left.iter().filter(|row| !row.starts_with("Pod/hbase-master-0 ")).collect();
        ensure!(left.is_empty(), "left: {left:#?}");
        let pod = ["get", "pod", "hbase-master-0", "-n", "elsewhere", "-o", "jsonpath={.status.phase}"];
        let phase = kubernetes.kubectl(&pod).await?.success()?;
        ensure!(phase == "Running", "{phase}");
        let delete = ["delete", "namespace", "elsewhere", alluxio::NAMESPACE, "--ignore-not-found"];
        kubernetes.kubectl(&delete).await?.success().map(drop)
    })
    .await
}
