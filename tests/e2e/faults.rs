//! Something breaks before or during a load: files, workers, the job service, the master, the command.
//! Whatever breaks, LOADED is said only of what is on the disks.

mod command;
mod job_service;
mod master;
mod workers;

use crate::outcome::{failed, failures, shown, wish};
use alluxio_preload_api::v1::load::Reason;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, ensure};
use preload_tests::{MIB, Sidecar, processes, shared};
use std::fs;

const NO_ARGUMENTS: [&str; 0] = [];

#[tokio::test]
async fn files_gone_or_cut_in_the_ufs_are_named() -> Result<()> {
    gone_or_cut(Engine::DistributedLoad).await
}

#[tokio::test]
async fn files_gone_or_cut_in_the_ufs_are_named_by_a_native_load() -> Result<()> {
    gone_or_cut(Engine::Native).await
}

async fn gone_or_cut(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("gone")?;
    data.files(50, 200_000)?;
    let large = data.below("large")?;
    large.files(3, 20 * MIB)?;
    // Alluxio has to know them as they were.
    cluster.oracle().tree(data.path()).await?;
    fs::remove_file(data.ufs().join("f00001"))?;
    fs::write(data.ufs().join("f00003"), "cut")?;
    fs::write(data.ufs().join("f00004"), "")?;
    fs::remove_file(large.ufs().join("f00000"))?;
    fs::File::options().write(true).open(large.ufs().join("f00001"))?.set_len(17 * MIB)?;
    let bad = [
        ("f00001", 200_000, 200_000),
        ("f00003", 200_000, 200_000),
        ("f00004", 200_000, 200_000),
        ("large/f00000", 20 * MIB, 20 * MIB),
        // Of two blocks the first is whole.
        ("large/f00001", 20 * MIB, 4 * MIB),
    ]
    .map(|(name, length, missing)| (format!("{}/{name}", data.path()), length, missing));

    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let wish = wish("gone", data.path(), 1, |spec| {
        spec.set_engine(engine);
        spec.max_attempts = 2;
    });
    sidecar.start_load(wish?).await?;
    let load = failed(&sidecar, "gone", Reason::Incomplete).await?;
    // What a command left undone is repaired as often as there may be attempts.
    let (attempts, tried) = match engine {
        Engine::Native => (2, "after 2 attempts;"),
        _ => (1, "after 1 attempts and 2 native repairs;"),
    };
    assert_eq!(
        (load.attempt, load.engine(), load.failures),
        (attempts, Engine::Native, 5),
        "{}",
        shown(&load)
    );
    ensure!(load.message.contains(tried), "{}", shown(&load));
    let progress = load.progress.context("progress")?;
    assert_eq!((progress.files_total, progress.files_cached, progress.files_failed), (53, 48, 5));
    assert_eq!(progress.bytes_failed, bad.iter().map(|(_, _, missing)| missing).sum::<u64>());
    assert_eq!(progress.bytes_cached + progress.bytes_failed, progress.bytes_total);

    let failures = failures(&sidecar, "gone").await?;
    let named: Vec<_> = failures.iter().map(|f| (f.path.clone(), f.length, f.bytes_missing)).collect();
    assert_eq!(named, bad);
    for failure in &failures {
        let words = failure.reason.strip_prefix("a block has no copy in the cache: ");
        ensure!(words.is_some_and(|words| words.len() > 10), "no words of Alluxio: {failure:?}");
        assert_eq!(failure.replicas_seen, 0, "{failure:?}");
    }
    let copies = cluster.oracle().copies(data.path()).await?;
    let missing: Vec<_> = bad.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(copies.missing(1), missing, "the rest is loaded, and nothing that is too short");
    sidecar.assert_no_errors()
}

/// The JVM that loads `path` for this sidecar.
fn command_of(sidecar: &Sidecar<'_>, path: &str) -> Result<Option<processes::Process>> {
    let is_it = |process: &processes::Process| {
        process.command.contains("alluxio.cli.fs.FileSystemShell distributedLoad")
            && process.command.ends_with(path)
    };
    Ok(sidecar.descendants()?.into_iter().find(is_it))
}
