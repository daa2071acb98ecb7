//! Every kind of cluster: a stock Fluid, a patched one that erases what it does not know, and none at all.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, Patch, PatchParams};
use preload_tests::{
    Controller, ControllerSetup, Course, Crds, Fluid, Kubernetes, KubernetesOptions, MIB, Shown, Sidecar,
    crds, shared, wait,
};
use serde_json::json;

use super::world::{NAME, WORKERS, World, spec};

const STATUS: &str = "/metadata/annotations/preload.dev~1status";

/// Annotations say it, and an annotation answers; only namespaces with the label are touched.
#[tokio::test]
async fn a_stock_fluid() -> Result<()> {
    let alluxio = shared().await?;
    let kubernetes = Kubernetes::start(KubernetesOptions { controller_manager: true }).await?;
    crds::install(&kubernetes, Crds::StockFluid).await?;
    let namespace = kubernetes.namespace("stock", &[("preload.dev/enabled", "true")]).await?;
    let outside = kubernetes.namespace("outside", &[]).await?;
    let client = kubernetes.client().await?;
    let (runtimes, preloads, others) = tokio::try_join!(
        Course::of_runtimes(&client, &namespace),
        Course::of_preloads(&client, &namespace),
        Course::of_runtimes(&client, &outside)
    )?;
    let setup = ControllerSetup::new(&kubernetes, &namespace).all_namespaces();
    let controller = setup.start(&kubernetes).await?;
    let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    let data = alluxio.data("stock")?;
    data.files(20, MIB)?;

    let untouched = Fluid::new(&kubernetes, &outside, NAME).await?;
    untouched.create(json!({ "replicas": WORKERS }), &[]).await?;
    untouched.report_ready(WORKERS).await?;
    let fluid = Fluid::new(&kubernetes, &namespace, NAME).await?;
    // The schema drops spec.data.preload: it may say what it likes.
    let annotations = [("preload.dev/path", data.path()), ("preload.dev/timeout", "30m")];
    fluid.create(spec("/dropped", 1), &annotations).await?;
    runtimes.until(NAME, |shown| shown.text(STATUS) == "NotStarted").await?;
    fluid.everything_ready(sidecar.address(), WORKERS).await?;
    let loaded = runtimes.until(NAME, |shown| shown.text(STATUS) == "Loaded").await?;
    ensure!(loaded.object.pointer("/status/preloadStatus").is_none());
    alluxio.oracle().assert_loaded(data.path(), 1).await?;
    let preload = preloads.of(NAME).pop().context("a Preload")?;
    ensure!(preload.text("/spec/timeout") == "30m" && preload.text("/spec/path") == data.path());

    // Fluid's updates keep annotations.
    fluid.put_typed().await?;
    fluid.edit(json!({ "metadata": { "annotations": { "preload.dev/engine": "Fast" } } })).await?;
    runtimes.until(NAME, |shown| shown.text(STATUS) == "Failed").await?;
    let events =
        kubernetes.kubectl(&["get", "events.events.k8s.io", "--namespace", &namespace]).await?.success()?;
    ensure!(events.contains("preload.dev/engine") && events.contains("DistributedLoad"), "{events}");
    fluid.edit(json!({ "metadata": { "annotations": { "preload.dev/engine": "DistributedLoad" } } })).await?;
    let engine = preloads
        .until(NAME, |s| s.text("/spec/engine") == "DistributedLoad" && s.text("/status/phase") == "Loaded");
    engine.await?;
    // What is taken away is gone.
    fluid.edit(json!({ "metadata": { "annotations": { "preload.dev/timeout": null } } })).await?;
    preloads.until(NAME, |s| s.object.pointer("/spec/timeout").is_none()).await?;
    fluid.edit(json!({ "metadata": { "annotations": { "preload.dev/enabled": "false" } } })).await?;
    preloads.until(NAME, |shown| shown.deleted).await?;
    let values = runtimes.values(NAME, STATUS);
    ensure!(
        values.last().map(String::as_str) == Some("NotStarted") || {
            runtimes
                .until(NAME, |s| {
                    s.text(STATUS) == "NotStarted"
                        && s.text("/metadata/annotations/preload.dev~1enabled") == "false"
                })
                .await?;
            true
        }
    );
    ensure!(
        others.all().iter().all(|shown| shown.text(STATUS).is_empty()),
        "a namespace without the label was touched"
    );

    // The label brings the other in, at once.
    let label = ["label", "namespace", &outside, "preload.dev/enabled=true"];
    kubernetes.kubectl(&label).await?.success()?;
    others.until(NAME, |shown| shown.text(STATUS) == "NotStarted").await?;
    // And a patched schema moves the status to where it belongs.
    crds::patch_fluid(&kubernetes).await?;
    // Not by the watch: one that was opened before shows objects as the old schema has them.
    wait::until("the status to be in the status", wait::LIMIT, async || {
        let runtime = untouched.get().await?;
        ensure!(runtime.data["status"]["preloadStatus"] == "NotStarted", "{}", runtime.data["status"]);
        Ok(Some(()))
    })
    .await?;
    // What was disabled there stays so when Fluid brings its own schema back: it is not all loaded then.
    let disabled = json!({ "preload": { "enabled": false, "path": "/data" } });
    untouched.edit(json!({ "spec": { "data": disabled } })).await?;
    wait::until("the wish to be recorded", wait::LIMIT, async || {
        let runtime = untouched.get().await?;
        let recorded =
            runtime.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("preload.dev/spec"));
        ensure!(recorded, "{:?}", runtime.metadata.annotations);
        Ok(Some(()))
    })
    .await?;
    let gone = Course::of_preloads(&client, &outside).await?;
    crds::install(&kubernetes, Crds::StockFluid).await?;
    wait::until("the status to be in an annotation", wait::LIMIT, async || {
        let runtime = untouched.get().await?;
        let annotations = runtime.metadata.annotations.unwrap_or_default();
        ensure!(
            annotations.get("preload.dev/status").map(String::as_str) == Some("NotStarted"),
            "{annotations:?}"
        );
        ensure!(annotations.contains_key("preload.dev/spec"), "the wish is lost: {annotations:?}");
        Ok(Some(()))
    })
    .await?;
    ensure!(
        gone.all()
            .iter()
            .all(|shown| shown.deleted || !shown.object["metadata"]["deletionTimestamp"].is_null())
    );
    controller.assert_no_errors()
}

/// Fluid PUTs typed objects without our fields, here every second: the wish is kept, the status comes back, and
/// there is no storm of writes.
#[tokio::test]
async fn a_patched_fluid_erases_our_fields_every_second() -> Result<()> {
    let world = World::new("erase").await?;
    let data = world.data("erase", 60, MIB / 2)?;
    let other = world.data("erase-other", 1, MIB)?;
    world.ready_runtime(data.path(), 1).await?;
    let (over, puts) = (AtomicBool::new(false), AtomicU32::new(0));
    let eraser = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        while !over.load(Ordering::Relaxed) {
            seconds.tick().await;
            // A conflict: it loses a turn, as Fluid would.
            puts.fetch_add(u32::from(world.fluid.put_typed().await.is_ok()), Ordering::Relaxed);
        }
        Ok::<_, anyhow::Error>(())
    };
    let watch = async {
        world.preloads.until(NAME, |s| s.text("/status/phase") == "Loaded").await?;
        world.shows("Loaded").await?;
        // Enough of them for a storm.
        let enough = puts.load(Ordering::Relaxed) + 20;
        wait::until("20 more PUTs", wait::LIMIT, async || {
            Ok((puts.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await?;
        over.store(true, Ordering::Relaxed);
        Ok(())
    };
    tokio::try_join!(eraser, watch)?;
    let puts = puts.into_inner();
    ensure!(puts >= 15, "only {puts} PUTs");
    let states = world.runtimes.of(NAME);
    let ours = |shown: &Shown| shown.object.pointer("/status/preloadStatus").cloned();
    let appeared =
        states.windows(2).filter(|pair| ours(&pair[0]).is_none() && ours(&pair[1]).is_some()).count();
    ensure!(appeared >= 3, "what was erased did not come back: {appeared}");
    ensure!(appeared <= usize::try_from(puts)? / 2, "{appeared} writes against {puts} PUTs are a storm");
    // The spec was erased, too, and what it said still counts.
    let last = states.last().context("a state")?;
    ensure!(last.object.pointer("/spec/data/preload").is_none());
    let preload = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(
        preload.text("/spec/path") == data.path() && preload.number("/status/run") == 1,
        "{}",
        preload.object
    );
    ensure!(world.alluxio.oracle().copies(other.path()).await?.most() == 0);
    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;
    // Events tell of changes, not of repairs.
    let events = world.kubectl(&["get", "events.events.k8s.io", "-o", "name"]).await?;
    ensure!(events.lines().count() < 12, "{events}");
    world.controller.assert_no_errors()
}

async fn stateful_set(
    kubernetes: &Kubernetes,
    namespace: &str,
    name: &str,
    role: &str,
    ready: i32,
) -> Result<()> {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": name, "namespace": namespace, "labels": { "role": role } },
        "spec": {
            "replicas": if role == "alluxio-worker" { WORKERS } else { 1 },
            "serviceName": name,
            "selector": { "matchLabels": { "set": name } },
            "template": {
                "metadata": { "labels": { "set": name, "role": role } },
                "spec": { "containers": [{ "name": role, "image": "alluxio" }] },
            },
        },
    });
    kubernetes.apply(&set.to_string()).await?;
    let sets: Api<StatefulSet> = Api::namespaced(kubernetes.client().await?, namespace);
    let status =
        json!({ "status": { "replicas": WORKERS, "readyReplicas": ready, "observedGeneration": 1 } });
    sets.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("the set's status")?;
    Ok(())
}

/// Our own CRD of AlluxioRuntime, and StatefulSets instead of Fluid; several paths into one cluster by hand.
#[tokio::test]
async fn without_fluid() -> Result<()> {
    let alluxio = shared().await?;
    let kubernetes = Kubernetes::start(KubernetesOptions { controller_manager: true }).await?;
    crds::install(&kubernetes, Crds::Standalone).await?;
    let namespace = kubernetes.namespace("standalone", &[]).await?;
    let client = kubernetes.client().await?;
    let (runtimes, preloads) =
        tokio::try_join!(Course::of_runtimes(&client, &namespace), Course::of_preloads(&client, &namespace))?;
    let controller = Controller::start(&kubernetes, &namespace).await?;
    let sidecar = Sidecar::start(alluxio, &[] as &[&str]).await?;
    let (one, two) = (alluxio.data("standalone-1")?, alluxio.data("standalone-2")?);
    one.files(4, MIB)?;
    two.files(4, MIB)?;

    let fluid = Fluid::new(&kubernetes, &namespace, NAME).await?;
    fluid.create(spec(one.path(), 1), &[]).await?;
    runtimes.until(NAME, |shown| shown.text("/status/preloadStatus") == "NotStarted").await?;
    stateful_set(&kubernetes, &namespace, "hbase-master", "alluxio-master", 1).await?;
    stateful_set(&kubernetes, &namespace, "hbase-worker", "alluxio-worker", 1).await?;
    fluid.create_master_pod(sidecar.address(), true).await?;
    preloads
        .until(NAME, |s| s.condition("WorkersReady") == ("False".into(), "WorkersNotReady".into()))
        .await?;
    ensure!(preloads.of(NAME).iter().all(|s| s.object.pointer("/status/submission").is_none()));
    stateful_set(&kubernetes, &namespace, "hbase-worker", "alluxio-worker", WORKERS).await?;
    runtimes
        .until(NAME, |s| {
            s.text("/status/preloadStatus") == "Loaded" && s.text("/status/preloadProgress") == "100%"
        })
        .await?;
    let table =
        kubernetes.kubectl(&["get", "alluxioruntimes", "--namespace", &namespace]).await?.success()?;
    for word in ["PHASE", "PROGRESS", "REPLICAS", "AGE", "Loaded", "100%"] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }

    // By hand, with nothing but StatefulSets.
    let by_hand = json!({
        "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
        "metadata": { "name": "second", "namespace": namespace },
        "spec": { "runtimeRef": { "kind": "StatefulSet", "name": "hbase-master" }, "path": two.path(), "replicas": 2 },
    });
    kubernetes.apply(&by_hand.to_string()).await?;
    preloads.until("second", |shown| shown.text("/status/phase") == "Loaded").await?;
    alluxio.oracle().assert_loaded(one.path(), 1).await?;
    alluxio.oracle().assert_loaded(two.path(), 2).await?;
    kubernetes.kubectl(&["delete", "pl", "second", "--namespace", &namespace]).await?.success()?;
    // The runtime is gone before its Preload is, as the garbage collector does it: the pod still has the load.
    let three = alluxio.data("standalone-3")?;
    three.files(600, MIB / 8)?;
    fluid.edit(json!({ "spec": { "data": { "preload": { "path": three.path() } } } })).await?;
    preloads.until(NAME, |s| s.number("/status/run") == 2 && s.text("/status/phase") == "Loading").await?;
    fluid.delete().await?;
    kubernetes
        .kubectl(&["delete", "pl", NAME, "--wait=false", "--namespace", &namespace])
        .await?
        .success()?;
    preloads.until(NAME, |shown| shown.deleted).await?;
    let all = alluxio_preload_api::v1::ListLoadsRequest { page_size: 1000, ..Default::default() };
    let loads = sidecar.client()?.list_loads(all).await?.into_inner().loads;
    let last = loads.iter().find(|load| load.spec.as_ref().is_some_and(|s| s.path == three.path()));
    ensure!(last.context("the load")?.state() == State::Cancelled, "{last:?}");
    controller.assert_no_errors()
}
