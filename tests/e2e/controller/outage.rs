//! What breaks around the controller: the API server, the sidecar, the master's pod; and what gets in its way.

use std::sync::atomic::{AtomicBool, Ordering};

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{
    Controller, ControllerSetup, Course, Crds, Fluid, Kubernetes, KubernetesOptions, MIB, Part, Sidecar,
    crds, shared,
};
use serde_json::json;

use super::world::{NAME, WORKERS, World, spec};

#[tokio::test]
async fn the_api_server_restarts_in_the_middle() -> Result<()> {
    let alluxio = shared().await?;
    let kubernetes = Kubernetes::start(KubernetesOptions { controller_manager: true }).await?;
    crds::install(&kubernetes, Crds::PatchedFluid).await?;
    let namespace = kubernetes.namespace("restart", &[]).await?;
    let client = kubernetes.client().await?;
    let runtimes = Course::of_runtimes(&client, &namespace).await?;
    let controller = Controller::start(&kubernetes, &namespace).await?;
    let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    let data = alluxio.data("restart")?;
    data.files(200, MIB / 8)?;
    let fluid = Fluid::new(&kubernetes, &namespace, NAME).await?;
    fluid.create(spec(data.path(), 1), &[]).await?;
    fluid.everything_ready(sidecar.address(), WORKERS).await?;
    runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == "DisLoading").await?;
    kubernetes.kill(Part::ApiServer, Signal::SIGKILL).await?;
    // The load goes on without it.
    let loads = sidecar.client()?.list_loads(alluxio_preload_api::v1::ListLoadsRequest::default()).await?;
    let id = loads.into_inner().loads.first().context("the load")?.id.clone();
    sidecar.in_state(&id, State::Loaded).await?;
    kubernetes.start_part(Part::ApiServer).await?;
    runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == "Loaded").await?;
    let loads = sidecar.client()?.list_loads(alluxio_preload_api::v1::ListLoadsRequest::default()).await?;
    ensure!(loads.into_inner().loads.len() == 1);
    controller.assert_no_errors()
}

#[tokio::test]
async fn the_sidecar_restarts_in_the_middle() -> Result<()> {
    let mut world = World::new("sidecar").await?;
    let data = world.data("sidecar", 300, MIB / 8)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("DisLoading").await?;
    world.sidecar.kill9().await?;
    let gone =
        |s: &preload_tests::Shown| s.condition("SidecarReachable") == ("False".into(), "Unreachable".into());
    let unreachable = world.preloads.until(NAME, gone).await?;
    ensure!(
        unreachable.text("/status/phase") == "Loading",
        "nothing is known to be wrong: {}",
        unreachable.object["status"]
    );
    world.sidecar.restart().await?;
    world.shows("Loaded").await?;
    let last = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(last.number("/status/run") == 1 && last.condition("SidecarReachable").0 == "True");
    ensure!(world.loads().await?.len() == 1);
    world.preloads.assert_paced(NAME)?;
    world.controller.assert_no_errors()
}

/// It never comes back: the status says so, takes nothing back, and a deletion does not wait for ever.
#[tokio::test]
async fn the_sidecar_is_gone_for_good() -> Result<()> {
    let mut world = World::new("gone").await?;
    // With a bound that a test can wait for.
    world.controller.end(Signal::SIGTERM).await?;
    let setup = ControllerSetup::new(world.kubernetes, &world.namespace).argument("--cancel-timeout=3s");
    world.controller = setup.start(world.kubernetes).await?;
    let data = world.data("gone", 300, MIB / 8)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("DisLoading").await?;
    world.sidecar.kill9().await?;
    world.preloads.until(NAME, |s| s.condition("SidecarReachable").0 == "False").await?;
    world.events_tell(&["SidecarUnreachable"]).await?;
    ensure!(world.statuses().last().map(String::as_str) == Some("DisLoading"), "{:?}", world.statuses());
    world.fluid.delete().await?;
    world.preloads.until(NAME, |shown| shown.deleted).await?;
    world.events_tell(&["CancelAbandoned"]).await
}

/// The pod of the master is made anew: what was loaded is gone with its metadata, and is loaded again.
#[tokio::test]
async fn the_master_pod_is_replaced() -> Result<()> {
    let world = World::new("replaced").await?;
    let data = world.data("replaced", 4, MIB)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("Loaded").await?;
    world.fluid.delete_master_pod().await?;
    world.now_shows("NotStarted").await?;
    let withdrawn = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(
        withdrawn.condition("Loaded") == ("False".into(), "MasterReplaced".into()),
        "{}",
        withdrawn.object["status"]
    );
    // The new pod has a sidecar with an empty store, as with an emptyDir.
    let sidecar = Sidecar::start(world.alluxio, &[] as &[&str]).await?;
    world.fluid.create_master_pod(sidecar.address(), true).await?;
    world.now_shows("Loaded").await?;
    let loads = sidecar.client()?.list_loads(alluxio_preload_api::v1::ListLoadsRequest::default()).await?;
    ensure!(loads.into_inner().loads.len() == 1);
    ensure!(world.preloads.of(NAME).pop().is_some_and(|s| s.number("/status/run") == 2));
    world.controller.assert_no_errors()
}

/// The same pod, but its sidecar has lost its store: the load is asked for again.
#[tokio::test]
async fn the_sidecar_forgets_the_load() -> Result<()> {
    let mut world = World::new("forgets").await?;
    let data = world.data("forgets", 4, MIB)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("Loaded").await?;
    world.sidecar.kill9().await?;
    std::fs::remove_dir_all(world.sidecar.state_directory())?;
    world.sidecar.restart().await?;
    let again =
        |s: &preload_tests::Shown| s.number("/status/run") == 2 && s.text("/status/phase") == "Loaded";
    world.preloads.until(NAME, again).await?;
    world.events_tell(&["LoadForgotten"]).await?;
    ensure!(world.loads().await?.len() == 1);
    Ok(())
}

/// More was mounted after the load: Loaded spoke of less.
#[tokio::test]
async fn something_is_mounted_later() -> Result<()> {
    let world = World::new("mounted").await?;
    let data = world.data("mounted", 2, MIB)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("Loaded").await?;
    world.fluid.mounted("2026-01-02T03:04:05Z").await?;
    let again =
        |s: &preload_tests::Shown| s.number("/status/run") == 2 && s.text("/status/phase") == "Loaded";
    world.preloads.until(NAME, again).await?;
    ensure!(world.preloads.of(NAME).iter().any(|s| s.condition("Loaded").1 == "MountsChanged"));
    Ok(())
}

/// Somebody cancels the load in the sidecar, behind the controller's back.
#[tokio::test]
async fn somebody_else_cancels() -> Result<()> {
    let world = World::new("cancels").await?;
    let data = world.data("cancels", 400, MIB / 4)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("DisLoading").await?;
    let id = world.loads().await?[0].id.clone();
    crate::support::cancel(&world.sidecar, &id).await?;
    world.shows("Failed").await?;
    let cancelled = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(cancelled.text("/status/phase") == "Cancelled", "{}", cancelled.object["status"]);
    ensure!(world.loads().await?.len() == 1, "it is not started again");
    Ok(())
}

/// Others write to the same objects all the time.
#[tokio::test]
async fn conflict_storms() -> Result<()> {
    let world = World::new("storms").await?;
    let data = world.data("storms", 60, MIB / 4)?;
    let preloads = world.preload_api().await?;
    let over = AtomicBool::new(false);
    let storm = async {
        let mut writes = 0_u32;
        while !over.load(Ordering::Relaxed) {
            writes += 1;
            let labels = json!({ "metadata": { "labels": { "storm": writes.to_string() } } });
            let (parameters, merge) = (kube::api::PatchParams::default(), kube::api::Patch::Merge(&labels));
            // Errors: they are not there yet.
            let (one, other) =
                tokio::join!(world.fluid.edit(labels.clone()), preloads.patch(NAME, &parameters, &merge));
            drop((one, other));
        }
        Ok::<_, anyhow::Error>(writes)
    };
    let load = async {
        world.ready_runtime(data.path(), 1).await?;
        world.shows("Loaded").await?;
        over.store(true, Ordering::Relaxed);
        Ok(())
    };
    let (writes, ()) = tokio::try_join!(storm, load)?;
    ensure!(writes > 100, "that was no storm: {writes} writes");
    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;
    ensure!(world.loads().await?.len() == 1);
    let labels = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(!labels.text("/metadata/labels/storm").is_empty(), "the labels of others are kept");
    world.controller.assert_no_errors()
}
