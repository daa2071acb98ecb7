//! From `kubectl apply` to Loaded, on a real cache.

use anyhow::{Result, ensure};
use preload_tests::MIB;

use super::world::{NAME, WORKERS, World, spec};

#[tokio::test]
async fn from_apply_to_loaded() -> Result<()> {
    let world = World::new("apply").await?;
    let data = world.data("apply", 40, MIB)?;
    let other = world.data("apply-other", 3, MIB)?;

    // What a user does; Fluid and the kubelet follow.
    let manifest = serde_json::json!({
        "apiVersion": "data.fluid.io/v1alpha1", "kind": "AlluxioRuntime",
        "metadata": { "name": NAME, "namespace": world.namespace }, "spec": spec(data.path(), 1),
    });
    world.kubernetes.apply(&manifest.to_string()).await?;
    world.fluid.everything_ready(world.sidecar.address(), WORKERS).await?;
    world.shows("Loaded").await?;

    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;
    let copies = world.alluxio.oracle().copies(other.path()).await?;
    ensure!(copies.most() == 0, "something else was loaded: {copies:?}");
    let listed = world.alluxio.alluxio(&["fs", "ls", "-R", data.path()]).await?.success()?;
    ensure!(listed.lines().filter(|line| line.contains("100%")).count() == 40, "{listed}");

    let statuses = world.statuses();
    let wanted = ["", "NotStarted", "DisLoading", "Loaded"];
    ensure!(is_subsequence(&statuses, &wanted), "{statuses:?}");
    let shown = world.preloads.until(NAME, |shown| shown.text("/status/phase") == "Loaded").await?;
    ensure!(shown.number("/status/progress/percent") == 100 && shown.number("/status/progress/files") == 40);
    ensure!(shown.number("/status/run") == 1 && world.loads().await?.len() == 1);
    for gate in ["MasterReady", "SidecarReachable", "WorkersReady", "MetadataLoaded", "Loaded"] {
        ensure!(shown.condition(gate).0 == "True", "{gate}: {}", shown.object["status"]);
    }
    let table = world.kubectl(&["get", "pl"]).await?;
    for word in ["PHASE", "PERCENT", "ETA", "AGE", NAME, "Loaded", "100"] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    world.events_tell(&["Pending", "Loaded", "PreloadNotStarted", "PreloadLoaded"]).await?;
    world.preloads.assert_paced(NAME)?;
    world.runtimes.assert_paced(NAME)?;
    world.controller.assert_quiet()?;
    world.sidecar.assert_quiet()
}

/// In the order of `wanted`, and nothing else: a state that was too short to be written may be missing.
fn is_subsequence(seen: &[String], wanted: &[&str]) -> bool {
    let mut wanted = wanted.iter();
    seen.iter().all(|status| wanted.any(|other| other == status))
}
