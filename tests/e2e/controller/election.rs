//! Two replicas: one works, the other takes over.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{
    Controller, ControllerSetup, Course, Exit, Fluid, MIB, Sidecar, shared, shared_fluid, wait,
};

use super::world::{WORKERS, spec};

/// The leader is killed in the middle of a load, then its successor ends gracefully, then a third is suspended
/// until it has lost the lease and goes on: each load runs once, whoever leads.
#[tokio::test]
async fn the_leader_is_killed_ended_and_suspended() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("election", &[]).await?;
    let client = kubernetes.client().await?;
    let preloads = Course::of_preloads(&client, &namespace).await?;
    let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    let mut leader = Controller::start(kubernetes, &namespace).await?;
    let mut standby = ControllerSetup::new(kubernetes, &namespace).spawn(kubernetes)?;
    standby.says("ok: standby").await?;

    let mut number = 0;
    for how in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP] {
        number += 1;
        let name = format!("election-{number}");
        let data = alluxio.data(&name)?;
        data.files(200, MIB / 8)?;
        let fluid = Fluid::new(kubernetes, &namespace, &name).await?;
        fluid.create(spec(data.path(), 1), &[]).await?;
        fluid.everything_ready(sidecar.address(), WORKERS).await?;
        preloads.until(&name, |shown| shown.text("/status/phase") == "Loading").await?;
        match how {
            Signal::SIGSTOP => leader.signal(how)?,
            Signal::SIGTERM => ensure!(leader.end(how).await? == Exit::Code(0), "{}", leader.log_end()),
            _ => ensure!(leader.end(how).await? == Exit::Signal(9)),
        }
        standby.leading().await?;
        let loaded = preloads.until(&name, |shown| shown.text("/status/phase") == "Loaded").await?;
        ensure!(loaded.number("/status/run") == 1, "{}", loaded.object["status"]);
        alluxio.oracle().assert_loaded(data.path(), 1).await?;
        if how == Signal::SIGSTOP {
            // What it planned before must not be written now.
            leader.signal(Signal::SIGCONT)?;
            leader.says("ok: standby").await?;
            let last = preloads.of(&name).pop().map(|shown| shown.text("/status/phase").to_owned());
            ensure!(last.as_deref() == Some("Loaded"), "{last:?}");
        } else {
            leader.respawn()?;
            leader.says("ok: standby").await?;
        }
        std::mem::swap(&mut leader, &mut standby);
    }
    let all = alluxio_preload_api::v1::ListLoadsRequest { page_size: 1000, ..Default::default() };
    let loads = sidecar.client()?.list_loads(all).await?.into_inner().loads;
    ensure!(loads.len() == number, "{number} runtimes, but {} loads", loads.len());
    leader.assert_no_errors()?;
    standby.assert_no_errors()
}

/// A graceful end gives the lease up at once: the other need not wait until it runs out.
#[tokio::test]
async fn a_graceful_end_hands_over() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("handover", &[]).await?;
    // Longer than this test waits for anything.
    let setup = ControllerSetup::new(kubernetes, &namespace).argument("--lease-duration=1h");
    let mut first = setup.clone().start(kubernetes).await?;
    // 1h / 7 between two looks: the second one looks at its start, after the first has ended.
    ensure!(first.end(Signal::SIGTERM).await? == Exit::Code(0), "{}", first.log_end());
    let mut second = setup.spawn(kubernetes)?;
    second.leading().await?;
    let lease = kubernetes
        .kubectl(&[
            "get",
            "lease",
            "preload-controller",
            "--namespace",
            &namespace,
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])
        .await?
        .success()?;
    ensure!(!lease.is_empty());
    wait::until("the first to be gone", wait::LIMIT, async || Ok((!first.is_running()).then_some(()))).await
}
