//! Hundreds of runtimes, whose sidecars are played: what one of them does to the others, and how much is written.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, api::ListParams};
use nix::sys::signal::Signal;
use preload_tests::stub::{Behaviour, Stub};
use preload_tests::{AuditEvent, Controller, ControllerSetup, Fluid, Kubernetes, shared_fluid, wait};
use std::time::Duration;

use super::world::{WORKERS, spec};

/// Runtimes that are being created at once.
const AT_ONCE: usize = 8;
/// Of the controller for one runtime and its Preload, from creation to Loaded. Events are not among them.
const MOST_WRITES: usize = 8;
/// For the whole fleet; two cores do it in half a minute.
const LIMIT: Duration = Duration::from_secs(300);
const LOADING: Duration = Duration::from_millis(300);

#[tokio::test]
async fn one_slow_and_one_hanging_sidecar_delay_nobody() -> Result<()> {
    let behaviours = [Behaviour::Hangs, Behaviour::never_ends()];
    let others = std::iter::repeat_n(Behaviour::loads_within(LOADING), 198);
    let mut fleet = Fleet::new("slow", behaviours.into_iter().chain(others)).await?;
    let (hanging, slow) = (name(0), name(1));
    // First, so that the others come to whoever waits for them.
    fleet.create(0..2).await?;
    fleet.create(2..200).await?;
    fleet.loaded(198).await?;

    let statuses = fleet.statuses().await?;
    for (runtime, wanted) in [(&hanging, ["", "NotStarted"]), (&slow, ["NotStarted", "DisLoading"])] {
        let status = statuses.get(runtime).context("the runtime is gone")?;
        ensure!(wanted.contains(&status.as_str()), "{runtime} is {status:?}");
    }
    let mut starts = HashMap::<_, usize>::new();
    for start in fleet.stub.starts() {
        ensure!(start.namespace == fleet.namespace && start.name == name(start.sidecar), "{start:?}");
        *starts.entry(start.name).or_default() += 1;
    }
    ensure!(starts.len() == 199 && starts.values().all(|count| *count == 1), "{starts:?}");
    ensure!(!starts.contains_key(&hanging));

    fleet.end().await?;
    let writes = fleet.writes(Timestamp::MIN)?;
    ensure!(writes.len() == 200, "writes for {} runtimes", writes.len());
    let mut counts: Vec<_> =
        writes.iter().filter(|(runtime, _)| **runtime != slow).map(|(_, w)| w.len()).collect();
    counts.sort_unstable();
    eprintln!("writes for one runtime: median {:?}, most {:?}", counts.get(counts.len() / 2), counts.last());
    for (runtime, writes) in writes.iter().filter(|(runtime, _)| **runtime != slow) {
        ensure!(writes.len() <= MOST_WRITES, "{runtime}: {} writes: {writes:?}", writes.len());
    }
    for event in fleet.requests()? {
        ensure!(event.subresource != "exec" && event.resource != "secrets", "{event:?}");
    }
    fleet.controller.assert_no_errors()
}

#[tokio::test]
async fn a_cold_start_with_finished_runtimes_writes_nothing() -> Result<()> {
    let behaviours = std::iter::repeat_n(Behaviour::loads_within(LOADING), 151);
    let mut fleet = Fleet::new("cold", behaviours).await?;
    fleet.create(0..150).await?;
    fleet.loaded(150).await?;
    let before = fleet.stub.watches();
    ensure!(before.len() == 150, "{} loads are watched", before.len());
    fleet.end().await?;

    let begun = Timestamp::now();
    fleet.controller.restart().await?;
    wait::until("every load to be watched again", LIMIT, async || {
        let now = fleet.stub.watches();
        let missing = before.iter().filter(|(id, count)| now.get(*id) <= Some(count)).count();
        ensure!(missing == 0, "{missing} are not");
        Ok(Some(()))
    })
    .await?;
    // Whatever is still queued comes before what this one needs, which also shows that the controller works.
    fleet.create(150..151).await?;
    fleet.loaded(151).await?;
    fleet.end().await?;

    let mut writes = fleet.writes(begun)?;
    ensure!(writes.remove(&name(150)).is_some(), "the last runtime was not written");
    ensure!(writes.is_empty(), "{writes:?}");
    ensure!(fleet.stub.starts().len() == 151, "a finished load was started again");
    let events = fleet.requests()?.into_iter().filter(|event| {
        event.resource == "events" && event.received.0 >= begun && !event.name.starts_with(&name(150))
    });
    let events: Vec<_> = events.collect();
    ensure!(events.is_empty(), "{events:?}");
    fleet.controller.assert_no_errors()
}

fn name(number: usize) -> String {
    format!("runtime-{number:03}")
}

/// Runtimes of one namespace, a sidecar each, and a controller.
#[derive(Debug)]
struct Fleet {
    kubernetes: &'static Kubernetes,
    namespace: String,
    controller: Controller<'static>,
    stub: Stub,
}

impl Fleet {
    /// Without runtimes yet.
    async fn new(prefix: &str, behaviours: impl Iterator<Item = Behaviour>) -> Result<Self> {
        let kubernetes = shared_fluid().await?;
        let namespace = kubernetes.namespace(prefix, &[]).await?;
        let stub = Stub::start(kubernetes.sandbox(), behaviours, None)?;
        // The short lease of the other tests is lost while the API server is busy with so many.
        // One at a time: a sidecar that held up a reconciliation would hold up all.
        let setup = ControllerSetup::new(kubernetes, &namespace)
            .argument("--lease-duration=15s")
            .argument("--concurrency=1");
        let controller = setup.start(kubernetes).await?;
        Ok(Self { kubernetes, namespace, controller, stub })
    }

    /// Runtimes of these numbers, with everything ready.
    async fn create(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        stream::iter(numbers)
            .map(async |number| {
                let fluid = Fluid::new(self.kubernetes, &self.namespace, &name(number)).await?;
                fluid.create(spec("/data", 1), &[]).await?;
                fluid.everything_ready(&self.stub.address(number)?, WORKERS).await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// preloadStatus of each runtime.
    async fn statuses(&self) -> Result<HashMap<String, String>> {
        let any = Fluid::new(self.kubernetes, &self.namespace, "any").await?;
        let all = any.runtimes().list(&ListParams::default()).await.context("list")?;
        let status = |object: &kube::api::DynamicObject| {
            object.data["status"]["preloadStatus"].as_str().unwrap_or_default().to_owned()
        };
        Ok(all.iter().map(|object| (object.name_any(), status(object))).collect())
    }

    /// Waits until so many runtimes are Loaded.
    async fn loaded(&self, wanted: usize) -> Result<()> {
        wait::until("the runtimes to be Loaded", LIMIT, async || {
            let loaded = self.statuses().await?.values().filter(|status| *status == "Loaded").count();
            ensure!(loaded == wanted, "{loaded} of {wanted} are");
            Ok(Some(()))
        })
        .await
    }

    /// Ends the controller, and waits until all that it asked for is in the audit log.
    async fn end(&mut self) -> Result<()> {
        let exit = self.controller.end(Signal::SIGTERM).await?;
        ensure!(exit.success(), "{exit:?}");
        // Lines are written in the order of the answers: after ours there is none of the controller.
        let mark = name(999);
        Fluid::new(self.kubernetes, &self.namespace, &mark).await?.runtimes().get_opt(&mark).await?;
        wait::until("the audit log", wait::LIMIT, async || {
            let seen = self.kubernetes.audit()?;
            let marked = |event: &AuditEvent| event.namespace == self.namespace && event.name == mark;
            Ok(seen.iter().any(marked).then_some(()))
        })
        .await
    }

    /// All requests of the controller that are in the audit log.
    fn requests(&self) -> Result<Vec<AuditEvent>> {
        let mut all = self.kubernetes.audit()?;
        all.retain(|event| {
            event.user_agent.starts_with("preload-controller/") && event.namespace == self.namespace
        });
        ensure!(!all.is_empty(), "the controller is not in the audit log");
        Ok(all)
    }

    /// What it has written since, for each runtime: its Preload included.
    fn writes(&self, since: Timestamp) -> Result<HashMap<String, Vec<String>>> {
        let mut writes = HashMap::<_, Vec<_>>::new();
        for event in self.requests()? {
            let written = ["create", "update", "patch", "delete"].contains(&event.verb.as_str())
                && ["preloads", "alluxioruntimes"].contains(&event.resource.as_str());
            // A conflict is none: the object had changed, and stays as it is.
            if written && event.code < 300 && event.received.0 >= since {
                let AuditEvent { verb, resource, subresource, .. } = event;
                writes.entry(event.name).or_default().push(format!("{verb} {resource}/{subresource}"));
            }
        }
        Ok(writes)
    }
}
