//! A tmpfs of 8 MiB that can be filled and be made read-only, for a state directory.
//!
//! It is mounted in a mount namespace that only a thread and what that starts are in: it goes with them, however
//! they end.

use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const NOTHING: Option<&str> = None;

/// See the module.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it. From now on the calling thread has a mount namespace of its own.
    pub fn mount(sandbox: &Sandbox) -> Result<Self> {
        let path = sandbox.folder("disk")?;
        unshare(CloneFlags::CLONE_NEWNS).context("mounting a file system needs root: run it by 'sudo'")?;
        mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
        mount(Some("small"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=8m"))?;
        Ok(Self { path })
    }

    /// Runs `test` on a thread with such a disk, in a runtime of its own.
    pub fn run(test: impl AsyncFnOnce(&Sandbox, &Self) -> Result<()> + Send) -> Result<()> {
        let sandbox = Sandbox::new()?;
        let run = || {
            let disk = Self::mount(&sandbox)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(test(&sandbox, &disk))
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("make room")
    }

    /// Fails while a file is open for writing.
    pub fn read_only(&self, read_only: bool) -> Result<()> {
        let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(NOTHING, &self.path, NOTHING, MsFlags::MS_REMOUNT | flags, NOTHING).context("remount")
    }
}
