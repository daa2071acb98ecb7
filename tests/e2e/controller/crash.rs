//! `kill -9` after every write that the controller makes: never two loads, never a phase without its reason.

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::{
    Controller, ControllerSetup, Course, Fluid, Gatekeeper, Kubernetes, MIB, Sidecar, shared, shared_fluid,
    wait,
};
use serde_json::json;

use super::world::{NAME, WORKERS, spec};

/// More writes than any of the courses below needs.
const MOST_WRITES: usize = 16;

struct Rig {
    kubernetes: &'static Kubernetes,
    namespace: String,
    gatekeeper: Gatekeeper,
    preloads: Course,
    runtimes: Course,
    sidecar: Sidecar<'static>,
}

impl Rig {
    async fn new(prefix: &str) -> Result<Self> {
        let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
        let namespace = kubernetes.namespace(prefix, &[]).await?;
        let client = kubernetes.client().await?;
        let (preloads, runtimes) = tokio::try_join!(
            Course::of_preloads(&client, &namespace),
            Course::of_runtimes(&client, &namespace)
        )?;
        let gatekeeper = Gatekeeper::start(kubernetes).await?;
        let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
        Ok(Self { kubernetes, namespace, gatekeeper, preloads, runtimes, sidecar })
    }

    fn setup(&self) -> ControllerSetup {
        let setup = ControllerSetup::new(self.kubernetes, &self.namespace);
        // One name for all of them: a replica that is started again need not wait for its own lease to run out.
        setup.kubeconfig(self.gatekeeper.kubeconfig()).argument("--identity=rig")
    }

    /// Kills the controller when write `number` from now on has been made.
    fn kill_at(&self, number: usize, controller: &Controller<'_>) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(controller.pid()?)?);
        // An error: it has ended already, which the test finds out.
        self.gatekeeper.trap(number, move || {
            let _ = kill(pid, Signal::SIGKILL);
        });
        Ok(())
    }

    /// The phases that the Preload went through make sense, and each run has one load.
    async fn check(&self, name: &str, runs: i64) -> Result<()> {
        let states = self.preloads.of(name);
        let mut last = (0, "Pending".to_owned());
        for shown in states.iter().filter(|shown| !shown.deleted) {
            let now = (shown.number("/status/run"), shown.text("/status/phase").to_owned());
            ensure!(now.0 >= last.0, "the run went back: {}", shown.object["status"]);
            let rank =
                |phase: &str| ["", "Pending", "Loading", "Loaded"].iter().position(|other| *other == phase);
            let back = now.0 == last.0 && rank(&now.1) < rank(&last.1) && !now.1.is_empty();
            ensure!(!back, "{last:?} became {now:?}: {}", shown.object["status"]);
            last = now;
        }
        ensure!(last == (runs, "Loaded".to_owned()), "{last:?}");
        Ok(())
    }
}

/// One load, killed after each write in turn.
#[tokio::test]
async fn after_every_write_of_a_load() -> Result<()> {
    every_write(kill_in_a_load, 6).await
}

/// A change of the path in the middle of a load, killed after each write in turn: the old load is cancelled.
#[tokio::test]
async fn after_every_write_of_a_change() -> Result<()> {
    every_write(kill_in_a_change, 4).await
}

/// Runs `course` for each number of a write, a few at once since most of it is waiting. It tells whether it came
/// to a kill; at least `fewest` must, and one must not.
async fn every_write(course: impl AsyncFn(usize) -> Result<bool>, fewest: usize) -> Result<()> {
    let course = &course;
    let killed: Vec<bool> =
        futures_util::stream::iter(1..=MOST_WRITES)
            .map(|number| async move {
                course(number).await.with_context(|| format!("killed after write {number}"))
            })
            .buffered(3)
            .try_collect()
            .await?;
    let kills = killed.iter().filter(|killed| **killed).count();
    eprintln!("killed after {kills} writes");
    ensure!(kills >= fewest, "only {kills} kills: the trap does not work");
    ensure!(kills < MOST_WRITES, "the course needs more writes than {MOST_WRITES}");
    Ok(())
}

async fn kill_in_a_load(number: usize) -> Result<bool> {
    let rig = Rig::new("crash").await?;
    let data = shared().await?.data("crash")?;
    data.files(2, MIB)?;
    let mut controller = rig.setup().start(rig.kubernetes).await?;
    rig.kill_at(number, &controller)?;
    let fluid = Fluid::new(rig.kubernetes, &rig.namespace, NAME).await?;
    fluid.create(spec(data.path(), 1), &[]).await?;
    fluid.everything_ready(rig.sidecar.address(), WORKERS).await?;
    // Either the trap has sprung, or the whole course needed fewer writes.
    let killed = wait::until("the kill, or the end of the load", wait::LIMIT, async || {
        if !controller.is_running() {
            return Ok(Some(true));
        }
        let shown = rig.runtimes.of(NAME).pop().context("no runtime")?;
        let loaded = shown.text("/status/preloadStatus") == "Loaded"
            && shown.text("/status/preloadProgress") == "100%";
        Ok(loaded.then_some(false))
    })
    .await?;
    if killed {
        controller.restart().await?;
    }
    rig.runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == "Loaded").await?;
    rig.check(NAME, 1).await?;
    let loads = loads_of(&rig.sidecar, data.path()).await?;
    ensure!(loads == [State::Loaded], "{loads:?}");
    shared().await?.oracle().assert_loaded(data.path(), 1).await?;
    controller.assert_no_errors()?;
    Ok(killed)
}

async fn kill_in_a_change(number: usize) -> Result<bool> {
    let rig = Rig::new("change").await?;
    let (old, new) = (shared().await?.data("change-old")?, shared().await?.data("change-new")?);
    old.files(200, MIB / 8)?;
    new.files(1, MIB)?;
    let mut controller = rig.setup().start(rig.kubernetes).await?;
    let fluid = Fluid::new(rig.kubernetes, &rig.namespace, NAME).await?;
    fluid.create(spec(old.path(), 1), &[]).await?;
    fluid.everything_ready(rig.sidecar.address(), WORKERS).await?;
    rig.runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == "DisLoading").await?;
    rig.kill_at(number, &controller)?;
    fluid.edit(json!({ "spec": { "data": { "preload": { "path": new.path() } } } })).await?;
    let is_done = || {
        rig.preloads.of(NAME).last().is_some_and(|s| {
            s.number("/status/run") == 2
                && s.text("/status/phase") == "Loaded"
                && s.object.pointer("/status/cancelling").is_none()
        })
    };
    let killed = wait::until("the kill, or the end of it all", wait::LIMIT, async || {
        Ok(if controller.is_running() { is_done().then_some(false) } else { Some(true) })
    })
    .await?;
    if killed {
        controller.restart().await?;
        wait::until("the end of it all", wait::LIMIT, async || Ok(is_done().then_some(()))).await?;
    }
    let of_new = loads_of(&rig.sidecar, new.path()).await?;
    let of_old = loads_of(&rig.sidecar, old.path()).await?;
    ensure!(of_new == [State::Loaded], "{of_new:?}");
    ensure!(of_old == [State::Cancelled] || of_old == [State::Loaded], "{of_old:?}");
    rig.check(NAME, 2).await?;
    Ok(killed)
}

/// States of the loads of exactly this path.
async fn loads_of(sidecar: &Sidecar<'_>, path: &str) -> Result<Vec<State>> {
    let request = alluxio_preload_api::v1::ListLoadsRequest { page_size: 1000, ..Default::default() };
    let all = sidecar.client()?.list_loads(request).await?.into_inner().loads;
    let of_path = all.iter().filter(|load| load.spec.as_ref().is_some_and(|spec| spec.path == path));
    Ok(of_path.map(|load| load.state()).collect())
}
