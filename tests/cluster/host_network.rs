//! Masters on the network of their node, where two sidecars cannot have the same ports.

use crate::scene::{Scene, loaded, play};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use preload_tests::nodes::alluxio;
use preload_tests::{http, wait};

const FILES: usize = 40;
const NODE: &str = "node-1";
const SPEC: &str = "    spec:\n      automountServiceAccountToken: false\n";
const ON_HOST: &str = "      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      nodeSelector: {kubernetes.io/hostname: node-1}
";
/// One more on the same node, without an Alluxio: its sidecar serves all the same.
const OTHER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: neighbour, labels: {preload.dev/enabled: 'true'}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {namespace: neighbour, name: hbase-master, labels: {role: alluxio-master}}
spec:
  serviceName: hbase-master
  selector: {matchLabels: {role: alluxio-master}}
  template:
    metadata: {labels: {role: alluxio-master}}
    spec:
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      nodeSelector: {kubernetes.io/hostname: node-1}
      terminationGracePeriodSeconds: 0
      containers: [{name: alluxio-master, image: 'busybox:1', command: [sleep, infinity]}]
";

/// The port of gRPC that the sidecar was given; the one of `/readyz` is next to it.
async fn port(scene: &Scene<'_>, namespace: &str, pod: &str) -> Result<u16> {
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), namespace);
    let pod = pods.get(pod).await?;
    let port = pod.annotations().get("preload.dev/sidecar-port").context("it was not injected")?;
    port.parse().with_context(|| format!("understand {port:?}"))
}

#[tokio::test]
async fn masters_of_one_node_have_ports_of_their_own() -> Result<()> {
    play(async |scene| {
        let kubernetes = scene.nodes.kubernetes();
        // The level of the example forbids it.
        let allowed = [("enforce: restricted", "enforce: privileged")];
        scene.installation.apply_file("alluxio-namespace.yaml", &allowed).await?;
        scene.kubectl(&["delete", "statefulset", "alluxio-master", "--timeout=100s"]).await?;
        scene.kubectl(&["wait", "--for=delete", "pod", alluxio::MASTER, "--timeout=100s"]).await?;
        let template = format!("{SPEC}{ON_HOST}");
        scene.installation.apply_file("alluxio-master.yaml", &[(SPEC, &template)]).await?;
        kubernetes.apply(OTHER).await?;
        scene.master_ready(|_| true).await?;
        let rollout = ["rollout", "status", "-n", "neighbour", "statefulset/hbase-master", "--timeout=100s"];
        kubernetes.kubectl(&rollout).await?.success()?;

        let one = port(scene, alluxio::NAMESPACE, alluxio::MASTER).await?;
        let other = port(scene, "neighbour", "hbase-master-0").await?;
        println!("ports on {NODE}: {one} and {other}");
        let range = 27_000..28_000;
        ensure!(range.contains(&one) && range.contains(&other) && one.abs_diff(other) >= 2, "{one}, {other}");
        for port in [one, other] {
            let forward =
                scene.nodes.forward(&format!("{}:{}", scene.nodes.node(NODE)?.address(), port + 1))?;
            let answer = wait::until("the answer of a sidecar", wait::LIMIT, async || {
                let (status, body) = http::get(forward.address(), "/readyz").await?;
                ensure!(status == 200, "{status}: {body}");
                Ok(Some(body))
            });
            println!("{port}: {}", answer.await?.trim_end());
        }

        let name = "host-network";
        scene.declare(name, FILES).await?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        scene.done(name).await?;
        kubernetes.kubectl(&["delete", "namespace", "neighbour"]).await?.success().map(drop)
    })
    .await
}
