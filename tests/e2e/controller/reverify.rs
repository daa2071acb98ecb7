//! What leaves the cache after Loaded is found by itself, and is loaded again, and nothing else is.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use alluxio_preload_api::v1::load::{Reason, State};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, Role, Shown};
use serde_json::json;

use super::world::{NAME, WORKERS, World, spec};
use crate::outcome::failures;
use crate::support::free;

/// The inodes of all cached blocks below `path`, by file: another one was cached anew.
async fn inodes(cluster: &Cluster, path: &str) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut all = BTreeMap::new();
    for (file, blocks) in cluster.oracle().copies(path).await?.files {
        let mut inodes = Vec::new();
        for block in &blocks {
            for worker in &block.workers {
                let on_disk = cluster.worker_directory(Role::Worker(*worker)).join(block.id.to_string());
                // With the time, since an inode may be used again.
                let metadata = std::fs::metadata(&on_disk).with_context(|| on_disk.display().to_string())?;
                inodes.extend([metadata.ino(), metadata.ctime_nsec().unsigned_abs()]);
            }
        }
        all.insert(file, inodes);
    }
    Ok(all)
}

/// Takes files out of the cache between two checks, so that one check finds all of them.
async fn free_unseen(world: &World, paths: &[String]) -> Result<()> {
    world.sidecar.signal(Signal::SIGSTOP)?;
    let freed = free(world.alluxio, paths).await;
    world.sidecar.signal(Signal::SIGCONT)?;
    freed
}

fn in_run(shown: &Shown, run: i64, phase: &str) -> bool {
    shown.number("/status/run") == run && shown.text("/status/phase") == phase
}

#[tokio::test]
async fn what_was_evicted_is_loaded_again_and_nothing_else() -> Result<()> {
    let world = World::new("evicted").await?;
    let data = world.data("evicted", 20, 50_000)?;
    let annotations = [("preload.dev/reverify-interval", "1s")];
    world.fluid.create(spec(data.path(), 1), &annotations).await?;
    world.fluid.everything_ready(world.sidecar.address(), WORKERS).await?;
    world.shows("Loaded").await?;
    let preload = world.preloads.of(NAME).pop().context("a Preload")?;
    ensure!(preload.text("/spec/reverifyInterval") == "1s", "{}", preload.object["spec"]);
    let before = inodes(world.alluxio, data.path()).await?;

    let gone = ["f00002", "f00005", "f00019"].map(|name| format!("{}/{name}", data.path()));
    free_unseen(&world, &gone).await?;
    let withdrawn = world.preloads.until(NAME, |s| in_run(s, 2, "Pending")).await?;
    ensure!(withdrawn.number("/status/evictions") == 1, "{}", withdrawn.object["status"]);
    world.preloads.until(NAME, |s| in_run(s, 2, "Loaded")).await?;
    world.now_shows("Loaded").await?;
    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;

    // The sidecar's word, the Preload's, the runtime's, and that of the events.
    let mut loads = world.loads().await?;
    loads.sort_by_key(|load| load.create_time.map(|time| (time.seconds, time.nanos)));
    let [first, second] = loads.as_slice() else { anyhow::bail!("two loads, not {loads:?}") };
    ensure!((first.state(), first.reason()) == (State::Stale, Reason::Evicted), "{first:?}");
    let named: Vec<_> =
        failures(&world.sidecar, &first.id).await?.into_iter().map(|file| file.path).collect();
    ensure!(named == gone, "{named:?}");
    ensure!(second.state() == State::Loaded && second.attempt == 1, "{second:?}");
    let said = world.preloads.of(NAME);
    ensure!(said.iter().any(|s| s.condition("Loaded") == ("False".into(), "Evicted".into())));
    world.events_tell(&["Evicted", "3 of 20 files"]).await?;
    let statuses = world.statuses();
    let end = ["Loaded", "NotStarted", "DisLoading", "Loaded"];
    ensure!(statuses.ends_with(&end.map(str::to_owned)), "{statuses:?}");

    for (file, inodes) in inodes(world.alluxio, data.path()).await? {
        let same = before.get(&file) == Some(&inodes);
        ensure!(same != gone.contains(&file), "{file}: {:?} became {inodes:?}", before.get(&file));
    }

    // What is evicted again and again is not loaded all the time.
    free_unseen(&world, &gone[..1]).await?;
    let waiting = world.preloads.until(NAME, |s| in_run(s, 3, "Pending")).await?;
    ensure!(waiting.number("/status/evictions") == 2, "{}", waiting.object["status"]);
    ensure!(
        !waiting.text("/status/notBefore").is_empty() && waiting.text("/status/message").contains("again in")
    );
    world.preloads.until(NAME, |s| in_run(s, 3, "Loaded")).await?;
    world.alluxio.oracle().assert_loaded(data.path(), 1).await?;
    world.preloads.assert_paced(NAME)?;

    // What is taken away is gone.
    let none = json!({ "metadata": { "annotations": { "preload.dev/reverify-interval": null } } });
    world.fluid.edit(none).await?;
    world.preloads.until(NAME, |s| s.object.pointer("/spec/reverifyInterval").is_none()).await?;
    world.sidecar.assert_no_errors()?;
    world.controller.assert_no_errors()
}
