//! A load goes on, or is begun again, whatever is killed.

use crate::scene::{MASTER, SIDECAR, is_ready, loaded, play, status};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use nix::sys::signal::Signal;
use preload_tests::nodes::{alluxio, installation::SYSTEM};
use preload_tests::wait;

const FILES: usize = 1000;
const FEW: usize = 400;

/// Nobody but the sidecar notices, and it stays below its limit of memory with both lives.
#[tokio::test]
async fn a_sidecar_killed_in_the_middle_resumes() -> Result<()> {
    play(async |scene| {
        let name = "killed-sidecar";
        scene.declare(name, FILES).await?;
        let held = scene.held_in_the_middle(name).await?;
        let before = scene.master().await?;
        let sidecar = scene.nodes.container(alluxio::NAMESPACE, alluxio::MASTER, SIDECAR).await?;
        sidecar.kill(Signal::SIGKILL).await?;
        let restarts = status(&before, SIDECAR)?.restart_count + 1;
        let restarted = |pod: &Pod| {
            status(pod, SIDECAR).is_ok_and(|s| s.restart_count == restarts && s.started == Some(true))
        };
        scene.master_ready(restarted).await?;
        held.go_on().await?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        // It has to find the workers again first, and says so.
        scene.assert_one_run(name)?;
        let phases = scene.preloads.values(name, "/status/phase");
        let all = ["", "Pending", "Loading", "Pending", "Loading", "Loaded"];
        ensure!(phases == all || phases == ["", "Pending", "Loading", "Loaded"], "phases: {phases:?}");
        let loads = scene.loads(&format!("/{name}")).await?;
        ensure!(loads.len() == 1, "{loads:?}");

        let end = scene.master().await?;
        ensure!(end.metadata.uid == before.metadata.uid && is_ready(&end), "another pod, or not Ready");
        for container in [MASTER, "alluxio-job-master"] {
            let (one, two) = (status(&before, container)?, status(&end, container)?);
            ensure!(one.container_id == two.container_id, "{container} is another");
            ensure!(two.restart_count == 0, "{container} was started again");
        }
        ensure!(restarted(&end), "the sidecar was started again more than once");
        let last = status(&end, SIDECAR)?.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        ensure!(last.is_some_and(|last| last.exit_code == 137), "not killed: {last:?}");
        scene.done(name).await
    })
    .await
}

/// The limit is that of the manifest, and what the kernel counts includes pages of files.
#[tokio::test]
async fn a_load_stays_below_the_limit_of_memory() -> Result<()> {
    play(async |scene| {
        let name = "memory";
        scene.declare(name, FEW).await?;
        scene.preloads.until(name, loaded(1)).await?;
        let sidecar = scene.nodes.container(alluxio::NAMESPACE, alluxio::MASTER, SIDECAR).await?;
        let memory = sidecar.memory()?;
        println!(
            "{FEW} files: the sidecar and its JVM took {} MiB at most, of {} MiB",
            memory.peak >> 20,
            memory.limit >> 20
        );
        ensure!(memory.limit == 768 << 20, "{memory:?}");
        ensure!(memory.peak < memory.limit, "{memory:?}");
        let master = scene.master().await?;
        let last = status(&master, SIDECAR)?.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        ensure!(last.is_none_or(|last| last.reason.as_deref() != Some("OOMKilled")), "{last:?}");
        scene.done(name).await
    })
    .await
}

#[tokio::test]
async fn a_master_made_anew_is_loaded_again() -> Result<()> {
    play(async |scene| {
        let name = "killed-master";
        scene.declare(name, FILES).await?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        scene.another_master().await?;
        scene.preloads.until(name, loaded(2)).await?;
        scene.everything_is_cached(name, FILES).await?;
        let phases = scene.preloads.values(name, "/status/phase");
        ensure!(
            phases == ["", "Pending", "Loading", "Loaded", "Pending", "Loading", "Loaded"],
            "phases: {phases:?}"
        );
        let events = scene.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await?;
        ensure!(events.contains("MasterReplaced"), "{events}");
        scene.done(name).await
    })
    .await
}

/// The pod of the replica that leads: its name is how the identity in the Lease begins.
async fn leader(leases: &Api<Lease>) -> Result<String> {
    let lease = leases.get("preload-controller").await.context("get the lease")?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
    holder.context("nobody leads")
}

#[tokio::test]
async fn another_replica_leads_on() -> Result<()> {
    play(async |scene| {
        let name = "killed-leader";
        let leases: Api<Lease> = Api::namespaced(scene.client.clone(), SYSTEM);
        scene.declare(name, FILES).await?;
        let held = scene.held_in_the_middle(name).await?;
        let before = leader(&leases).await?;
        let kubernetes = scene.nodes.kubernetes();
        let pods = ["get", "pods", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.name}"];
        let pods = kubernetes.kubectl(&pods).await?.success()?;
        let pod = pods.split(' ').find(|pod| before.starts_with(*pod)).context("no pod leads")?;
        // As when its node is lost: it gives nothing up.
        let delete = ["delete", "pod", pod, "-n", SYSTEM, "--force", "--grace-period=0"];
        kubernetes.kubectl(&delete).await?.success()?;
        wait::until("another to lead", wait::LIMIT, async || {
            Ok((leader(&leases).await? != before).then_some(()))
        })
        .await?;
        held.go_on().await?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        scene.assert_straight(name)?;
        let loads = scene.loads(&format!("/{name}")).await?;
        ensure!(loads.len() == 1, "{loads:?}");
        scene.installation.controller_ready().await?;
        scene.done(name).await
    })
    .await
}
