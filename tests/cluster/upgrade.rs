//! Another version while a load is under way: first of the controller, then of the sidecar.

use crate::scene::{loaded, play};
use anyhow::{Context, Result, ensure};
use preload_tests::Course;
use preload_tests::nodes::{catalogue, installation::SYSTEM};

const FILES: usize = 1000;
const NEXT: &str = "next";

#[tokio::test]
async fn a_load_outlives_an_update_of_the_controller() -> Result<()> {
    play(async |scene| {
        let (name, _) = catalogue::PRELOAD.split_once(':').context("a tag")?;
        scene.nodes.tag(catalogue::PRELOAD, &format!("{name}:{NEXT}")).await?;
        scene.installation.write(NEXT)?;
        let deployments = Course::of_deployments(&scene.client, SYSTEM).await?;
        let name = "upgrade";
        scene.declare(name, FILES).await?;
        let held = scene.held_in_the_middle(name).await?;
        let master = scene.master().await?.metadata.uid;

        // The controller alone, as where Fluid makes the masters.
        scene.installation.apply_controller().await?.success()?;
        scene.installation.controller_ready().await?;
        held.go_on().await?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        scene.assert_straight(name)?;
        let loads = scene.loads(&format!("/{name}")).await?;
        ensure!(loads.len() == 1, "{loads:?}");
        ensure!(scene.master().await?.metadata.uid == master, "the master was made anew");
        let updates = deployments.of("preload-controller");
        let last = updates.last().context("the Deployment never changed")?;
        ensure!(last.number("/status/updatedReplicas") == 2, "{}", last.object["status"]);
        let image = last.text("/spec/template/spec/containers/0/image");
        ensure!(image.ends_with(NEXT), "{image}");
        let ready: Vec<_> = updates.iter().map(|shown| shown.number("/status/readyReplicas")).collect();
        ensure!(ready.iter().all(|ready| *ready >= 1), "fewer than one was Ready: {ready:?}");

        // And the example's master, whose manifest names the image: another pod, hence another cache.
        scene.installation.apply().await?.success()?;
        scene.preloads.until(name, loaded(2)).await?;
        scene.master_ready(|pod| pod.metadata.uid != master).await?;
        scene.everything_is_cached(name, FILES).await?;
        scene.done(name).await
    })
    .await
}
