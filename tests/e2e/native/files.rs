//! Files that are not what a plain load expects: only in the cache, pinned, empty, changed or removed meanwhile.

use super::{KIB, NO_ARGUMENTS, natively};
use crate::outcome::{assert_honest, failed, failures, half_way, loaded, shown};
use alluxio_preload_api::v1::load::Reason;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, Copies, Data, MIB, Options, Role, Sidecar, shared, wait};
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

/// A file that is in the cache alone, as MUST_CACHE writes it.
async fn write_to_the_cache(cluster: &Cluster, data: &Data, name: &str) -> Result<String> {
    let source = Data::create(cluster.sandbox().folder("source")?, String::new())?;
    source.file(name, 30 * KIB)?;
    let target = format!("{}/{name}", data.path());
    let mut command = Command::new(cluster.launcher());
    command.args(["fs", "copyFromLocal"]).arg(source.ufs().join(name)).arg(&target);
    command.env("ALLUXIO_USER_JAVA_OPTS", "-Dalluxio.user.file.writetype.default=MUST_CACHE");
    command.env("LC_ALL", "C.UTF-8").current_dir(cluster.sandbox().directory());
    cluster.sandbox().run(&command, wait::LIMIT).await?.success()?;
    Ok(target)
}

#[tokio::test]
async fn a_file_that_is_only_in_the_cache() -> Result<()> {
    const WHY: &str = "not in the under file system yet";
    let cluster = Cluster::start(Options { job_service: false, ..Options::default() }).await?;
    let data = cluster.data("unpersisted")?;
    data.files(5, KIB)?;
    cluster.oracle().tree(data.path()).await?;
    let path = write_to_the_cache(&cluster, &data, "written").await?;
    ensure!(!data.ufs().join("written").exists(), "it was persisted, which proves nothing");
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    // One copy is there.
    sidecar.start_load(natively("one", data.path(), 1, |_| {})?).await?;
    let one = loaded(&sidecar, "one").await?;
    assert_eq!(one.progress.context("progress")?.files_cached, 6);
    let copies: Copies = cluster.oracle().copies(data.path()).await?;
    ensure!(copies.missing(1).is_empty(), "{copies:?}");
    // No worker can read a second one.
    sidecar.start_load(natively("two", data.path(), 2, |spec| spec.max_attempts = 1)?).await?;
    failed(&sidecar, "two", Reason::Incomplete).await?;
    let failure = failures(&sidecar, "two").await?;
    assert_eq!(failure.iter().map(|f| (f.path.as_str(), f.replicas_seen)).collect::<Vec<_>>(), [(&*path, 1)]);
    ensure!(failure[0].reason.contains(WHY), "{failure:?}");

    // A worker that starts again has the blocks that are on its disk.
    let block = copies.files.get(&path).and_then(|blocks| blocks.first()).context("a block")?;
    let holder = Role::Worker(*block.workers.first().context("a worker")?);
    cluster.kill(holder, Signal::SIGKILL).await?;
    fs::remove_file(cluster.worker_directory(holder).join(block.id.to_string()))?;
    cluster.start_role(holder).await?;
    sidecar.start_load(natively("lost", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
    failed(&sidecar, "lost", Reason::Incomplete).await?;
    let failure = failures(&sidecar, "lost").await?;
    assert_eq!(failure.iter().map(|f| (f.path.as_str(), f.replicas_seen)).collect::<Vec<_>>(), [(&*path, 0)]);
    ensure!(failure[0].reason.contains(WHY), "{failure:?}");
    assert_eq!(cluster.oracle().copies(data.path()).await?.missing(1), [path], "the rest is loaded");
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn pinned_and_empty_files() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("pinned")?;
    data.files(20, 16 * KIB)?;
    data.file("large", 20 * MIB)?;
    data.file("empty", 0)?;
    cluster.oracle().tree(data.path()).await?;
    cluster.alluxio(&["fs", "pin", data.path()]).await?.success()?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    for replicas in [1, 2] {
        let id = format!("pinned-{replicas}");
        sidecar.start_load(natively(&id, data.path(), replicas, |_| {})?).await?;
        let load = loaded(&sidecar, &id).await?;
        assert_eq!(load.progress.context("progress")?.files_total, 21, "files with data");
        cluster.oracle().assert_loaded(data.path(), replicas as usize).await?;
    }
    sidecar.assert_quiet()
}

/// Metadata are loaded once: what was there then is loaded, whatever has become of the file since.
#[tokio::test]
async fn files_that_have_grown_or_shrunk_since_their_metadata_were_loaded() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("changed")?;
    data.files(10, 16 * KIB)?;
    let large = data.below("large")?;
    large.files(2, 20 * MIB)?;
    let tree = cluster.oracle().tree(data.path()).await?;
    for file in [data.ufs().join("f00002"), large.ufs().join("f00001")] {
        File::options().append(true).open(file)?.write_all(&[7; 100_000])?;
    }
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(natively("grown", data.path(), 2, |_| {})?).await?;
    loaded(&sidecar, "grown").await?;
    let copies = tree.copies()?;
    assert_eq!((copies.missing(2), copies.length()), (vec![], 10 * 16 * KIB + 40 * MIB));
    tree.compare_contents(&copies)?;

    let cut = data.below("cut")?;
    cut.files(10, 16 * KIB)?;
    let known = cluster.oracle().tree(cut.path()).await?;
    File::options().write(true).open(cut.ufs().join("f00004"))?.set_len(16 * KIB - 1)?;
    sidecar.start_load(natively("cut", cut.path(), 2, |spec| spec.max_attempts = 1)?).await?;
    failed(&sidecar, "cut", Reason::Incomplete).await?;
    let bad = format!("{}/f00004", cut.path());
    assert_eq!(failures(&sidecar, "cut").await?.into_iter().map(|f| f.path).collect::<Vec<_>>(), [&*bad]);
    super::stumps::assert_none(cluster, &known)?;
    assert_eq!(known.copies()?.missing(2), [bad]);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn what_is_removed_during_the_load_is_not_asked_for_any_more() -> Result<()> {
    let cluster = shared().await?;
    for whole in [false, true] {
        let data = cluster.data("removed")?;
        let gone = data.below("gone")?;
        gone.files(300, 16 * KIB)?;
        data.files(300, 16 * KIB)?;
        let tree = cluster.oracle().tree(data.path()).await?;
        let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
        // So slow that there is time to remove something.
        let wish = natively("a", data.path(), 1, |spec| spec.max_bytes_per_second = MIB);
        sidecar.start_load(wish?).await?;
        half_way(&sidecar, "a", &tree, 1).await?;
        let removed = if whole { data.path() } else { gone.path() };
        cluster.alluxio(&["fs", "rm", "-R", removed]).await?.success()?;
        if whole {
            let load = failed(&sidecar, "a", Reason::PathNotFound).await?;
            ensure!(load.message.contains(data.path()), "{}", shown(&load));
        } else {
            ensure!(!fs::exists(gone.ufs())?, "Alluxio removes it in the under file system too");
            let load = loaded(&sidecar, "a").await?;
            assert_eq!(load.progress.context("progress")?.files_total, 300);
            assert_honest(cluster, &sidecar, &load).await?;
        }
        sidecar.assert_no_errors()?;
    }
    Ok(())
}
