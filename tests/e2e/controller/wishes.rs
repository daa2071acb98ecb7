//! What users change: enabled, path, replicas, and the end of a runtime.

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use preload_tests::{MIB, Shown, wait};
use serde_json::json;

use super::world::{NAME, World, spec};

fn enabled(enabled: bool) -> serde_json::Value {
    json!({ "spec": { "data": { "preload": { "enabled": enabled } } } })
}

#[tokio::test]
async fn enabled_false_true_false_true() -> Result<()> {
    let world = World::new("enabled").await?;
    let data = world.data("enabled", 4, MIB)?;
    let mut off = spec(data.path(), 1);
    off["data"]["preload"]["enabled"] = false.into();
    world.fluid.create(off, &[]).await?;
    world.fluid.everything_ready(world.sidecar.address(), super::world::WORKERS).await?;
    world.shows("NotStarted").await?;
    ensure!(world.preloads.all().is_empty() && world.loads().await?.is_empty(), "it is disabled");

    world.fluid.edit(enabled(true)).await?;
    world.shows("Loaded").await?;
    let first = world.preloads.of(NAME)[0].text("/metadata/uid").to_owned();

    world.fluid.edit(enabled(false)).await?;
    world.now_shows("NotStarted").await?;
    ensure!(world.preloads.of(NAME).last().is_some_and(|shown| shown.deleted), "the Preload is still there");

    world.fluid.edit(enabled(true)).await?;
    world.now_shows("Loaded").await?;
    let last = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(last.text("/metadata/uid") != first, "it is another one");
    ensure!(world.loads().await?.len() == 2, "each time one load");
    // A load may be over before anybody has written that it is under way.
    let statuses = world.statuses();
    let mut known: Vec<_> = statuses.iter().map(String::as_str).collect();
    known.retain(|status| *status != "DisLoading");
    ensure!(known == ["", "NotStarted", "Loaded", "NotStarted", "Loaded"], "{statuses:?}");
    let before = |pair: &[String]| pair[1] != "DisLoading" || pair[0] == "NotStarted";
    ensure!(statuses.windows(2).all(before), "{statuses:?}");
    world.controller.assert_no_errors()
}

#[tokio::test]
async fn disabled_in_the_middle() -> Result<()> {
    let world = World::new("disable").await?;
    let data = world.data("disable", 400, MIB / 4)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("DisLoading").await?;
    world.fluid.edit(enabled(false)).await?;
    world.now_shows("NotStarted").await?;
    let loads = world.loads().await?;
    ensure!(loads.len() == 1 && loads[0].state() == State::Cancelled, "{loads:?}");
    ensure!(world.statuses() == ["", "NotStarted", "DisLoading", "NotStarted"], "{:?}", world.statuses());
    Ok(())
}

#[tokio::test]
async fn the_path_changes_in_the_middle() -> Result<()> {
    let world = World::new("path").await?;
    let old = world.data("path-old", 400, MIB / 4)?;
    let new = world.data("path-new", 4, MIB)?;
    world.ready_runtime(old.path(), 1).await?;
    world.shows("DisLoading").await?;
    world.fluid.edit(json!({ "spec": { "data": { "preload": { "path": new.path() } } } })).await?;
    let loaded = world.preloads.until(NAME, |s| s.text("/status/phase") == "Loaded").await?;
    ensure!(loaded.text("/spec/path") == new.path() && loaded.number("/status/run") == 2);
    world.now_shows("Loaded").await?;
    world.alluxio.oracle().assert_loaded(new.path(), 1).await?;
    wait::until("the old load to be cancelled", wait::LIMIT, async || {
        let loads = world.loads().await?;
        ensure!(loads.len() == 2, "{} loads", loads.len());
        let old = loads.iter().find(|load| load.spec.as_ref().is_some_and(|s| s.path == old.path()));
        Ok((old.context("the old load")?.state() == State::Cancelled).then_some(()))
    })
    .await?;
    world
        .preloads
        .until(NAME, |s| s.number("/status/run") == 2 && s.object.pointer("/status/cancelling").is_none())
        .await?;
    world.preloads.assert_paced(NAME)?;
    world.controller.assert_no_errors()
}

#[tokio::test]
async fn from_one_replica_to_two() -> Result<()> {
    let world = World::new("replicas").await?;
    let data = world.data("replicas", 6, MIB)?;
    world.ready_runtime(data.path(), 1).await?;
    world.shows("Loaded").await?;
    world.fluid.edit(json!({ "spec": { "data": { "replicas": 2 } } })).await?;
    let again = |s: &Shown| s.text("/status/phase") == "Loaded" && s.number("/status/run") == 2;
    let again = world.preloads.until(NAME, again).await?;
    ensure!(again.number("/status/progress/bytesTotal") == i64::try_from(2 * 6 * MIB)?);
    world.alluxio.oracle().assert_loaded(data.path(), 2).await
}

#[tokio::test]
async fn a_failing_load_is_failed_until_the_spec_changes() -> Result<()> {
    let world = World::new("failing").await?;
    let data = world.data("failing", 3, MIB)?;
    world.ready_runtime("/there/is/no/such/path", 1).await?;
    world.shows("Failed").await?;
    let failed = world.preloads.until(NAME, |s| s.text("/status/phase") == "Failed").await?;
    ensure!(failed.text("/status/reason") == "PathNotFound", "{}", failed.object["status"]);
    ensure!(failed.condition("Loaded") == ("False".into(), "PathNotFound".into()));
    world.events_tell(&["Warning", "PathNotFound", "PreloadFailed"]).await?;

    world.fluid.edit(json!({ "spec": { "data": { "preload": { "path": data.path() } } } })).await?;
    world.now_shows("Loaded").await?;
    ensure!(world.loads().await?.len() == 2, "the failed one was not tried again by itself");
    Ok(())
}

/// A Preload by hand beside that of the runtime; it fails in part, and says which files.
#[tokio::test]
async fn what_is_missing_is_named() -> Result<()> {
    let world = World::new("missing").await?;
    let data = world.data("missing", 14, MIB)?;
    let mut off = spec("/", 1);
    off["data"]["preload"]["enabled"] = false.into();
    world.fluid.create(off, &[]).await?;
    world.fluid.everything_ready(world.sidecar.address(), super::world::WORKERS).await?;
    // Alluxio knows the files, then they are gone from the UFS: they cannot be loaded.
    world.alluxio.alluxio(&["fs", "ls", "-R", data.path()]).await?.success()?;
    for file in std::fs::read_dir(data.ufs())?.take(12) {
        std::fs::remove_file(file?.path())?;
    }
    let preload = json!({
        "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
        "metadata": { "name": "by-hand", "namespace": world.namespace },
        "spec": { "runtimeRef": { "name": NAME }, "path": data.path() },
    });
    world.kubernetes.apply(&preload.to_string()).await?;
    let failed = world.preloads.until("by-hand", |s| s.text("/status/phase") == "Failed").await?;
    ensure!(failed.number("/status/failures/count") == 12, "{}", failed.object["status"]);
    let first =
        failed.object.pointer("/status/failures/first").and_then(|f| f.as_array()).context("failures")?;
    ensure!(
        first.len() == 10 && first[0]["path"].as_str().is_some_and(|p| p.starts_with(data.path())),
        "{first:?}"
    );
    ensure!(first[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    Ok(())
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_the_accepted_form() -> Result<()> {
    let world = World::new("bad").await?;
    for (path, words) in [("data", "absolute"), ("/a/../b", ".."), ("", "absolute")] {
        let refused = world.fluid.create(spec(path, 1), &[]).await.err().context("it was accepted")?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains("spec.data.preload.path") && refused.contains(words), "{path}: {refused}");
    }
    let preload = |spec: serde_json::Value| {
        json!({
            "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
            "metadata": { "name": "bad", "namespace": world.namespace }, "spec": spec,
        })
        .to_string()
    };
    for (spec, words) in [
        (json!({ "runtimeRef": { "name": NAME }, "path": "a" }), "spec.path"),
        (json!({ "runtimeRef": { "name": NAME }, "path": "/a\nb" }), "control characters"),
        (json!({ "runtimeRef": { "name": NAME }, "replicas": 0 }), "spec.replicas"),
        (json!({ "runtimeRef": { "name": NAME }, "engine": "native" }), "spec.engine"),
        (json!({ "runtimeRef": { "name": NAME }, "timeout": "soon" }), "duration such as 2h"),
        (json!({ "runtimeRef": { "name": NAME }, "timeout": "0s" }), "duration such as 2h"),
        (json!({ "runtimeRef": { "name": NAME }, "reverifyInterval": "often" }), "duration such as 2h"),
        (json!({ "runtimeRef": { "name": NAME }, "reverifyInterval": "0m" }), "duration such as 2h"),
        (json!({ "runtimeRef": { "name": NAME, "workers": "w" } }), "kind StatefulSet"),
        (json!({ "runtimeRef": { "kind": "StatefulSet", "name": "alluxio" } }), "needs workers"),
        (json!({ "path": "/" }), "runtimeRef"),
    ] {
        let refused = world
            .kubernetes
            .apply(&preload(spec.clone()))
            .await
            .err()
            .context(format!("{spec} was accepted"))?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains(words), "{spec}: {refused}");
    }
    ensure!(world.preloads.all().is_empty());
    Ok(())
}

#[tokio::test]
async fn deleted_in_the_middle() -> Result<()> {
    let world = World::new("delete").await?;
    let data = world.data("delete", 400, MIB / 4)?;
    world.ready_runtime(data.path(), 1).await?;
    world.fluid.hold().await?;
    world.shows("DisLoading").await?;
    // Fluid takes the cluster down only after that.
    world.fluid.delete().await?;
    world.preloads.until(NAME, |shown| shown.deleted).await?;
    let loads = world.loads().await?;
    ensure!(loads.len() == 1 && loads[0].state() == State::Cancelled, "{loads:?}");
    world.fluid.let_go().await?;
    world.runtimes.until(NAME, |shown| shown.deleted).await?;
    world.controller.assert_no_errors()
}

/// More Preloads than the sidecar takes: the rest wait, say why, and are asked for again with patience.
#[tokio::test]
async fn a_full_queue_is_a_shut_gate() -> Result<()> {
    let world = World::with("queue", &["--max-running=1", "--max-queued=1"]).await?;
    let mut off = spec("/", 1);
    off["data"]["preload"]["enabled"] = false.into();
    world.fluid.create(off, &[]).await?;
    world.fluid.everything_ready(world.sidecar.address(), super::world::WORKERS).await?;
    let names: Vec<String> = (1..=4).map(|number| format!("queue-{number}")).collect();
    for name in &names {
        let data = world.data(name, 40, MIB / 4)?;
        let preload = json!({
            "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
            "metadata": { "name": name, "namespace": world.namespace },
            "spec": { "runtimeRef": { "name": NAME }, "path": data.path() },
        });
        world.kubernetes.apply(&preload.to_string()).await?;
    }
    for name in &names {
        world.preloads.until(name, |shown| shown.text("/status/phase") == "Loaded").await?;
    }
    let full = |s: &Shown| s.condition("SidecarReachable") == ("False".into(), "QueueFull".into());
    ensure!(world.preloads.all().iter().any(full), "no Preload says that the queue is full");
    ensure!(world.loads().await?.len() == names.len(), "each was started once");
    // Two or three of them were refused for some seconds: a handful of tries each, not thousands.
    let (_, metrics) = preload_tests::http::get(world.sidecar.admin_address(), "/metrics").await?;
    let refused = metrics.lines().find(|line| {
        line.contains("requests_total") && line.contains("StartLoad") && line.contains("ResourceExhausted")
    });
    let refused =
        refused.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).context("no refusal")?;
    ensure!((1..200).contains(&refused), "{refused} refusals");
    world.controller.assert_no_errors()
}

/// Somebody strips the finalizers of a Preload whose path was changed before: it keeps its path.
#[tokio::test]
async fn stripped_finalizers_change_nothing_else() -> Result<()> {
    let world = World::new("strip").await?;
    let (one, two) = (world.data("strip-1", 1, MIB)?, world.data("strip-2", 1, MIB)?);
    world.ready_runtime(one.path(), 1).await?;
    world.shows("Loaded").await?;
    world.fluid.edit(json!({ "spec": { "data": { "preload": { "path": two.path() } } } })).await?;
    let second = |s: &Shown| s.number("/status/run") == 2 && s.text("/status/phase") == "Loaded";
    world.preloads.until(NAME, second).await?;
    let begun = world.preloads.of(NAME).len();
    world
        .kubectl(&["patch", "pl", NAME, "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#])
        .await?;
    let finalizers =
        |s: &Shown| s.object.pointer("/metadata/finalizers").and_then(|f| f.as_array()).map_or(0, Vec::len);
    wait::until("the finalizer to be back", wait::LIMIT, async || {
        let since = &world.preloads.of(NAME)[begun..];
        let (gone, back) = (since.iter().position(|s| finalizers(s) == 0), since.last().map(finalizers));
        Ok((gone.is_some() && back == Some(1)).then_some(()))
    })
    .await?;
    for shown in &world.preloads.of(NAME)[begun..] {
        ensure!(
            shown.text("/spec/path") == two.path() && shown.number("/status/run") == 2,
            "{}",
            shown.object
        );
    }
    Ok(())
}

/// A Preload of the runtime's name that somebody else made is left alone; once it is gone, ours is made.
#[tokio::test]
async fn a_preload_of_somebody_else() -> Result<()> {
    let world = World::new("foreign").await?;
    let (theirs, ours) = (world.data("foreign-1", 1, MIB)?, world.data("foreign-2", 1, MIB)?);
    let preload = json!({
        "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
        "metadata": { "name": NAME, "namespace": world.namespace },
        "spec": { "runtimeRef": { "name": NAME }, "path": theirs.path() },
    });
    world.kubernetes.apply(&preload.to_string()).await?;
    world.ready_runtime(ours.path(), 1).await?;
    world.preloads.until(NAME, |s| s.text("/status/phase") == "Loaded").await?;
    world.shows("NotStarted").await?;
    world.events_tell(&["does not own"]).await?;
    ensure!(world.preloads.of(NAME).iter().all(|s| s.text("/spec/path") == theirs.path()));
    world.kubectl(&["delete", "pl", NAME]).await?;
    world.shows("Loaded").await?;
    ensure!(world.preloads.of(NAME).last().is_some_and(|s| s.text("/spec/path") == ours.path()));
    Ok(())
}
