//! The Alluxio that the sides load into, and how a run finds and leaves it: with an empty cache.

use crate::Bench;
use alluxio_client::{Client, Config, LoadMetadata};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, Data, MIB, Options, Role, wait};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::sync::OnceCell;

use super::case::Case;
use super::side::Side;
use super::tree::Tree;

/// For one command of Alluxio: the slowest took a minute where nothing else ran.
const COMMAND_LIMIT: Duration = Duration::from_secs(900);
/// For blocks to leave the workers after their files have.
const REMOVAL_LIMIT: Duration = Duration::from_secs(300);
/// For the master to hear of that; a heartbeat comes every second.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
/// Room that is left to everybody else.
const RESERVE: u64 = 2048 * MIB;

#[derive(Debug)]
pub(crate) struct Scene {
    cluster: Cluster,
    warm: OnceCell<()>,
}

impl Scene {
    /// Blocks of Alluxio's default size, in memory as its default tier.
    pub(crate) async fn start(bench: &Bench) -> Result<Self> {
        bench.say("native: starting Alluxio");
        let options = Options {
            worker_quota: 4096 * MIB,
            cache_in_memory: true,
            block_size: 64 * MIB,
            ..Options::default()
        };
        Ok(Self { cluster: Cluster::start(options).await?, warm: OnceCell::new() })
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Every side once, which is not counted: classes are loaded and code is compiled.
    pub(super) async fn warm_up(&self, bench: &Bench) -> Result<()> {
        let warm_up = async || {
            let files = bench.size(500, 20);
            for tree in [Tree::new(2, files, 16_000), Tree::new(1, 2, 80_000_000)] {
                let case =
                    Case { name: format!("warm-up, {tree}"), tree, replicas: 1, cold: false, faster: None };
                case.run(bench, self, 1).await?;
            }
            Ok(())
        };
        self.warm.get_or_try_init(warm_up).await.map(drop)
    }

    pub(super) fn client(&self) -> Client {
        client(&self.cluster)
    }

    /// Room in memory for the cache of one run, beside everything else.
    pub(super) fn ensure_room(&self, side: Side, bytes: u64) -> Result<()> {
        let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kilobytes: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .context("/proc/meminfo has no MemAvailable")?;
        ensure!(
            kilobytes * 1024 >= bytes + RESERVE,
            "{side:?} needs {} MB of memory, and {} MB are available",
            (bytes + RESERVE) / 1_000_000,
            kilobytes * 1024 / 1_000_000
        );
        Ok(())
    }

    /// Alluxio's command line, for as long as it takes.
    pub(super) async fn alluxio<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(self.cluster.launcher());
        command.args(arguments).env("LC_ALL", "C.UTF-8").current_dir(self.cluster.sandbox().directory());
        self.cluster.sandbox().run(&command, COMMAND_LIMIT).await?.success()
    }

    pub(super) async fn shell(&self, script: &str, arguments: &[&Path]) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-euc", script, "sh"]).args(arguments);
        self.cluster.sandbox().run(&command, COMMAND_LIMIT).await?.success().map(drop)
    }

    /// Takes a directory from Alluxio and the disk, and waits until no block is left on the workers, nor in
    /// what they have told the master.
    pub(super) async fn clear(&self, data: &Data) -> Result<()> {
        self.alluxio(&["fs", "rm", "-R", "--alluxioOnly", data.path()]).await.context("clear the cache")?;
        fs::remove_dir_all(data.ufs()).with_context(|| format!("remove {}", data.ufs().display()))?;
        let client = self.client();
        let gone = async || {
            let left = self.cluster.oracle().bytes_on_disk()?;
            ensure!(left == 0, "{left} bytes are left");
            Ok(Some(()))
        };
        wait::until("the workers to be empty", REMOVAL_LIMIT, gone).await?;
        let told = async || {
            let told: u64 = client.workers().await?.iter().map(|worker| worker.used_bytes).sum();
            ensure!(told == 0, "the master believes in {told} bytes");
            Ok(Some(()))
        };
        if wait::until("the master to know it", TOLD_LIMIT, told).await.is_ok() {
            return Ok(());
        }
        // A load that failed (fs load of 2.9.3) can leave a worker with room that it thinks is taken.
        for worker in (1..=self.cluster.options().workers).map(Role::Worker) {
            self.cluster.kill(worker, Signal::SIGKILL).await?;
            self.cluster.start_role(worker).await?;
        }
        wait::until("the master to know it", REMOVAL_LIMIT, told).await
    }
}

pub(super) fn client(cluster: &Cluster) -> Client {
    Client::new(Config { masters: vec![cluster.master_address()], ..Config::default() })
}

/// Makes the master know the files below a path.
pub(super) async fn load_metadata(client: &Client, path: &str) -> Result<usize> {
    let mut listing = client.list(path, LoadMetadata::Once).await?;
    let mut files = 0;
    while let Some(file) = listing.next().await? {
        files += usize::from(!file.folder);
    }
    Ok(files)
}
