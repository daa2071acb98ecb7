//! The harness itself: a test that cannot trust it proves nothing.

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use preload_tests::{
    Cluster, Copies, Exit, Leash, MIB, Options, Role, Sandbox, Sidecar, grpcurl, leash, load, prerequisites,
    processes, shared, wait,
};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn the_oracle_sees_one_copy_and_two() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("oracle")?;
    let small = data.below("small")?;
    small.files(20, 16 * 1024)?;
    let big = data.file("big", 48 * MIB + 1)?;
    let oracle = cluster.oracle();

    let copies = oracle.copies(data.path()).await?;
    assert_eq!((copies.files.len(), copies.length()), (21, 20 * 16 * 1024 + 48 * MIB + 1));
    assert_eq!(copies.files[&big].len(), 4, "three whole blocks of 16 MiB would be one too few: {copies:?}");
    assert_eq!((copies.fewest(), copies.most(), copies.bytes(9)), (0, 0, 0));

    let one = cache(cluster, small.path(), 1).await?;
    assert_eq!((one.fewest(), one.most(), one.bytes(9)), (1, 1, one.length()));
    assert_eq!(oracle.copies(&big).await?.most(), 0, "the sub-directory alone was loaded");

    let two = cache(cluster, &big, 2).await?;
    assert_eq!((two.fewest(), two.bytes(1), two.bytes(9)), (2, two.length(), 2 * two.length()));
    oracle.assert_loaded(&big, 2).await?;
    assert!(oracle.assert_loaded(&big, 3).await.is_err());

    let listed = oracle.fs_ls(data.path()).await?;
    assert_eq!(listed.len(), 21);
    assert!(listed.values().all(|file| file.percentage == 100), "{listed:?}");
    Ok(())
}

/// Loads by the command line until it is done. The command is not under test here: it may fail on a loaded
/// machine, leaves out second copies by chance without `--direct-cache`, and ends before the disks are written.
async fn cache(cluster: &Cluster, path: &str, replicas: usize) -> Result<Copies> {
    let number = replicas.to_string();
    let mut command = vec!["fs", "distributedLoad", "--replication", &number, path];
    if replicas > 1 {
        command.insert(2, "--direct-cache");
    }
    wait::until("blocks on the disks", wait::LIMIT, async || {
        cluster.alluxio(&command).await?.success()?;
        let copies = cluster.oracle().copies(path).await?;
        Ok(copies.missing(replicas).is_empty().then_some(copies))
    })
    .await
}

#[tokio::test]
async fn the_oracle_sees_a_block_that_was_tampered_with() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("tampered")?;
    let path = data.file("file", 1000)?;
    let copies = cache(cluster, &path, 1).await?;
    cluster.oracle().assert_loaded(&path, 1).await?;

    let block = copies.blocks().next().context("a block")?;
    let worker = *block.workers.first().context("a worker")?;
    let on_disk = cluster.worker_directory(Role::Worker(worker)).join(block.id.to_string());
    let mut bytes = fs::read(&on_disk)?;
    bytes[500] ^= 1;
    fs::write(&on_disk, &bytes)?;
    let error = cluster.oracle().assert_loaded(&path, 1).await.expect_err("one bit differs");
    assert!(error.to_string().contains("is not what was loaded"), "{error}");

    fs::write(&on_disk, &bytes[..999])?;
    let error = cluster.oracle().assert_loaded(&path, 1).await.expect_err("one byte is missing");
    assert!(error.to_string().contains("lack copies"), "{error}");
    Ok(())
}

#[tokio::test]
async fn odd_names_reach_alluxio_and_the_oracle() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("odd")?;
    let mut paths = data.odd_names(100)?;
    paths.sort();
    let copies = cache(cluster, data.path(), 1).await?;
    assert_eq!(copies.files.keys().collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_length_that_alluxio_remembers_wins_over_the_file() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("truncated")?;
    let path = data.file("file", 10_000)?;
    assert_eq!(cluster.oracle().copies(data.path()).await?.length(), 10_000);
    fs::write(data.ufs().join("file"), b"short")?;
    assert_eq!(cluster.oracle().copies(&path).await?.length(), 10_000);
    fs::remove_file(data.ufs().join("file"))?;
    assert_eq!(cluster.oracle().copies(&path).await?.length(), 10_000);
    Ok(())
}

#[tokio::test]
async fn processes_of_a_cluster_end_and_start_again() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let data = cluster.data("kill")?;
    data.files(4, 1000)?;
    cache(&cluster, data.path(), 2).await?;

    let before = cluster.pids();
    assert_eq!(before.len(), 6);
    assert_eq!(cluster.kill(Role::Worker(2), Signal::SIGKILL).await?, Exit::Signal(9));
    let without = cluster.oracle().copies(data.path()).await?;
    assert_eq!((without.fewest(), without.most()), (1, 1), "a dead worker does not count");
    cluster.start_role(Role::Worker(2)).await?;
    cluster.kill(Role::JobMaster, Signal::SIGKILL).await?;
    cluster.start_role(Role::JobMaster).await?;
    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    cluster.start_role(Role::Master).await?;

    let after = cluster.pids();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let changed = before.iter().filter(|(role, pid)| after[role] != **pid).count();
    assert_eq!(changed, 3);
    let extra = cluster.mount("/other").await?;
    let mounted = extra.file("here", 3)?;
    let all = cache(&cluster, "/", 1).await?;
    assert_eq!((all.files.len(), all.files[&mounted].len()), (5, 1));
    cluster.stop()
}

#[tokio::test]
async fn a_sidecar_is_killed_and_started_again() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("sidecar")?;
    data.files(3, 1000)?;
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("again", data.path(), 1)).await?;
    let loaded = sidecar.in_state("again", State::Loaded).await?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;

    let listed = grpcurl(cluster.sandbox(), &["-plaintext", sidecar.address(), "list"]).await?.success()?;
    assert!(listed.contains("preload.v1.PreloadService"), "{listed}");

    let pid = sidecar.pid()?;
    sidecar.kill9().await?;
    assert!(sidecar.get_load("again").await.is_err());
    sidecar.restart().await?;
    assert_ne!(sidecar.pid()?, pid);
    assert_eq!(sidecar.get_load("again").await?.uid, loaded.uid);
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn an_alluxio_without_distributed_load_runs() -> Result<()> {
    let version = prerequisites::ALLUXIO_WITHOUT_DISTRIBUTED_LOAD;
    let cluster = Cluster::start(Options { version, workers: 1, ..Options::default() }).await?;
    let output = cluster.alluxio(&["fs", "distributedLoad", "/"]).await?;
    assert_eq!(output.exit, Exit::Code(255));
    let said = output.stdout + &output.stderr;
    assert!(said.contains("distributedLoad is an unknown command"), "{said}");
    cluster.stop()
}

#[tokio::test]
async fn a_leash_ends_with_the_whole_family() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let marker = sandbox.directory().join("marker");
    // A child, and a grandchild that left the process group and lost its parent.
    let mut command = Command::new("sh");
    command.args(["-c", r#"setsid sh -c '(sleep 1000; : "$0") & exec sleep 1001' "$0" & exec tail -f "$0""#]);
    command.arg(&marker);
    fs::write(&marker, "")?;
    let log = sandbox.directory().join("log");
    let leash = Leash::start(&command, &log, &log)?;
    let family = wait::until("the family", wait::LIMIT, async || {
        let all = processes::descendants(leash.pid());
        Ok((all.iter().filter(|process| process.command.contains("sleep 100")).count() >= 2).then_some(all))
    })
    .await?;

    leash.signal(Signal::SIGKILL)?;
    assert_eq!(leash.exited(wait::LIMIT).await?, Exit::Signal(9));
    let alive = || {
        let pids: Vec<_> = processes::all().iter().map(|process| process.pid).collect();
        family.iter().filter(|process| pids.contains(&process.pid)).count()
    };
    assert_eq!(alive(), family.len(), "only the parent was killed");
    drop(leash);
    assert_eq!(alive(), 0, "{family:?}");
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let error = sandbox.run(&Command::new("/no/such/program"), wait::LIMIT).await.expect_err("not there");
    assert!(format!("{error:#}").contains("/no/such/program"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn sandboxes_are_apart_and_vanish() -> Result<()> {
    let (one, two) = (Sandbox::new()?, Sandbox::new()?);
    assert_ne!(one.address(1), two.address(1));
    let directory = one.directory().to_owned();
    assert!(directory.is_dir());
    drop(one);
    assert!(!directory.exists());
    Ok(())
}

/// What a developer does who loses patience: SIGKILL to the process that started a cluster.
#[tokio::test]
async fn nothing_outlives_a_killed_process() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let log = sandbox.directory().join("log");
    let victim = Leash::start(&Command::new(leash::sibling("preload-test-cluster")?), &log, &log)?;
    let directory = wait::until("the victim's cluster", Duration::from_secs(300), async || {
        let text = fs::read_to_string(&log)?;
        let complete = text.contains("ends with").then_some(text).context("it still starts")?;
        Ok(complete.lines().find_map(|line| line.strip_prefix("directory: ")).map(PathBuf::from))
    })
    .await?;
    assert_eq!(processes::naming(&directory).len(), 6);
    assert!(directory.is_dir());

    // Our own leash holds the victim's orphans now, but kills them only when it is dropped, after this.
    victim.signal(Signal::SIGKILL)?;
    victim.exited(wait::LIMIT).await?;
    wait::until("the end of the victim's cluster", wait::LIMIT, async || {
        let left = processes::naming(&directory);
        anyhow::ensure!(left.is_empty() && !directory.exists(), "left: {left:?}");
        Ok(Some(()))
    })
    .await
}
