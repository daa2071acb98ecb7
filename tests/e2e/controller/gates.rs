//! No load starts before every gate is open, whatever order the facts arrive in.

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use preload_tests::fluid::{NOT_READY, PARTIAL_READY, READY};
use preload_tests::{Controller, Course, Fluid, Kubernetes, MIB, Sidecar, shared, shared_fluid, wait};

use super::world::{WORKERS, spec};

/// What becomes true, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    /// The kubelet says that the master's pod is ready.
    Pod,
    /// Fluid says that the master is ready.
    Master,
    /// Fluid says that all workers are ready.
    Workers,
    /// The sidecar listens.
    Sidecar,
}

const FACTS: [Fact; 4] = [Fact::Pod, Fact::Master, Fact::Workers, Fact::Sidecar];

fn orders() -> Vec<[Fact; 4]> {
    let mut orders = Vec::new();
    for a in FACTS {
        for b in FACTS {
            for c in FACTS {
                for d in FACTS {
                    let order = [a, b, c, d];
                    if FACTS.iter().all(|fact| order.contains(fact)) {
                        orders.push(order);
                    }
                }
            }
        }
    }
    orders
}

#[tokio::test]
async fn every_order_of_gates() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("gates", &[]).await?;
    let client = kubernetes.client().await?;
    let preloads = Course::of_preloads(&client, &namespace).await?;
    let controller = Controller::start(kubernetes, &namespace).await?;
    let data = alluxio.data("gates")?;
    data.files(2, MIB)?;

    let orders = orders();
    ensure!(orders.len() == 24);
    futures_util::stream::iter(orders.into_iter().enumerate())
        .map(|(number, order)| {
            let (namespace, preloads, path) = (&namespace, &preloads, data.path());
            async move {
                let name = format!("order-{number}");
                one_order(kubernetes, namespace, preloads, path, &name, order)
                    .await
                    .map_err(|e| e.context(format!("{order:?}")))
            }
        })
        .buffer_unordered(12)
        .try_collect::<Vec<()>>()
        .await?;
    controller.assert_no_errors()
}

async fn one_order(
    kubernetes: &Kubernetes,
    namespace: &str,
    preloads: &Course,
    path: &str,
    name: &str,
    order: [Fact; 4],
) -> Result<()> {
    let alluxio = shared().await?;
    let fluid = Fluid::new(kubernetes, namespace, name).await?;
    let mut sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    sidecar.kill9().await?;
    fluid.create(spec(path, 1), &[]).await?;
    fluid.create_master_pod(sidecar.address(), false).await?;
    fluid.report(NOT_READY, PARTIAL_READY, 1, WORKERS).await?;

    let mut facts: Vec<Fact> = Vec::new();
    for fact in order {
        facts.push(fact);
        match fact {
            Fact::Pod => fluid.master_pod_is(sidecar.address(), true).await?,
            Fact::Master | Fact::Workers => {
                let has = |fact| facts.contains(&fact);
                let master = if has(Fact::Master) { READY } else { NOT_READY };
                let (phase, ready) = if has(Fact::Workers) { (READY, WORKERS) } else { (PARTIAL_READY, 1) };
                fluid.report(master, phase, ready, WORKERS).await?;
            }
            Fact::Sidecar => sidecar.restart().await?,
        }
        if facts.len() == order.len() {
            break;
        }
        // The controller has taken it in: its conditions say exactly what is true.
        let told = |gate: &str, open: bool| (gate.to_owned(), if open { "True" } else { "False" });
        let wanted = [
            told("MasterReady", facts.contains(&Fact::Pod) && facts.contains(&Fact::Master)),
            told("WorkersReady", facts.contains(&Fact::Workers)),
            told("SidecarReachable", facts.contains(&Fact::Sidecar)),
        ];
        wait::until(&format!("{name} to show {wanted:?}"), wait::LIMIT, async || {
            let last = preloads.of(name).pop();
            let shown =
                last.is_some_and(|s| wanted.iter().all(|(gate, status)| s.condition(gate).0 == *status));
            Ok(shown.then_some(()))
        })
        .await?;
        let last = preloads.of(name).pop();
        let last = last.ok_or_else(|| anyhow::anyhow!("no Preload"))?;
        ensure!(last.text("/status/phase") == "Pending", "{}", last.object["status"]);
        ensure!(last.object.pointer("/status/submission").is_none(), "{}", last.object["status"]);
        if facts.contains(&Fact::Sidecar) {
            let loads =
                sidecar.client()?.list_loads(alluxio_preload_api::v1::ListLoadsRequest::default()).await?;
            ensure!(loads.into_inner().loads.is_empty(), "a load with only {facts:?}");
        }
    }
    let loaded = preloads.until(name, |shown| shown.text("/status/phase") == "Loaded").await?;
    ensure!(loaded.number("/status/run") == 1);
    // The one start that there was came after all of it.
    for shown in preloads.of(name) {
        let submitted = shown.object.pointer("/status/submission").is_some();
        let open = ["MasterReady", "WorkersReady", "SidecarReachable"]
            .iter()
            .all(|gate| shown.condition(gate).0 == "True");
        ensure!(!submitted || open, "submitted with a shut gate: {}", shown.object["status"]);
    }
    sidecar.assert_no_errors()
}

/// No workers at all are not "all workers", whatever Fluid's phase says.
#[tokio::test]
async fn no_workers_are_not_ready() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("noworkers", &[]).await?;
    let preloads = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    let _controller = Controller::start(kubernetes, &namespace).await?;
    let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    let fluid = Fluid::new(kubernetes, &namespace, "empty").await?;
    let mut none = spec("/", 1);
    none["replicas"] = 0.into();
    fluid.create(none, &[]).await?;
    fluid.create_master_pod(sidecar.address(), true).await?;
    fluid.report(READY, READY, 0, 0).await?;
    let shut = preloads
        .until("empty", |shown| shown.condition("WorkersReady") == ("False".into(), "NoWorkers".into()));
    ensure!(shut.await?.text("/status/phase") == "Pending");
    // Wished for, but Fluid is still at none: scaling up.
    fluid.edit(serde_json::json!({ "spec": { "replicas": WORKERS } })).await?;
    preloads.until("empty", |shown| shown.condition("WorkersReady").1 == "Scaling").await?;
    let loads = sidecar.client()?.list_loads(alluxio_preload_api::v1::ListLoadsRequest::default()).await?;
    ensure!(loads.into_inner().loads.is_empty());
    Ok(())
}
