//! The images that do not change, unpacked once for all nodes and all runs: a root directory of containerd in
//! the cache, which a node gets as hard links.
//!
//! Invariants: a store appears whole or not at all, and is not written to later: what containerd changes in
//! place is copied.

use super::catalogue;
use super::containerd::Containerd;
use super::image::sha256;
use crate::machine::Machine;
use crate::prerequisites;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const PREFIX: &str = "images-";
/// As `tests/prerequisites` has it: it removes what is half made once nobody holds the lock.
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp.images";

/// A store. Nobody removes it while this lives.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// The one for the images of now, which takes half a minute to make if it is not there.
    pub(super) async fn open(sandbox: &Sandbox) -> Result<Self> {
        let cache = prerequisites::cache()?;
        let key = catalogue::fixed_key()?;
        let folder = cache.join(format!("{PREFIX}{:.16}", sha256(&key)));
        let path = cache.join(LOCK);
        let open = || File::options().append(true).create(true).open(&path);
        let lock = open().with_context(|| format!("open {}: run 'make prerequisites'", path.display()))?;
        let lock = tokio::task::spawn_blocking(move || lock.lock_shared().map(|()| lock)).await?;
        let mut lock = lock.context("lock the cache")?;
        while !folder.is_dir() {
            // A lock is not made exclusive without letting go: somebody else may be quicker.
            drop(lock);
            let exclusive = open()?;
            let exclusive =
                tokio::task::spawn_blocking(move || exclusive.lock().map(|()| exclusive)).await??;
            if !folder.is_dir() {
                make(sandbox, &cache, &folder).await.context("make the images of the nodes")?;
            }
            drop(exclusive);
            let shared = open()?;
            lock = tokio::task::spawn_blocking(move || shared.lock_shared().map(|()| shared)).await??;
        }
        Ok(Self { root: folder.join("root"), _lock: lock })
    }

    /// Gives a node's containerd its images, before it starts.
    pub(super) async fn copy_to(&self, sandbox: &Sandbox, directory: &Path) -> Result<()> {
        // Hard links need the same file system. What is a database is written in place.
        let script = r#"cp -al "$1" "$2/root" 2>/dev/null || { rm -rf "$2/root"; cp -a "$1" "$2/root"; }
            find "$2/root" -name '*.db' | while read -r file; do cp "$file" "$file.copy" && mv "$file.copy" "$file"; done"#;
        let mut command = Command::new("sh");
        command.args(["-euc", script, "sh"]).arg(&self.root).arg(directory);
        sandbox.run(&command, crate::wait::LIMIT).await?.success().context("copy the images").map(drop)
    }
}

/// For who holds the lock alone.
async fn make(sandbox: &Sandbox, cache: &Path, folder: &Path) -> Result<()> {
    let temporary = cache.join(TEMPORARY);
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir(&temporary).context("make a folder")?;
    // A machine, because unpacking mounts; and sockets have short names in a sandbox.
    let machine = Machine::new(sandbox, "images")?;
    let work = sandbox.folder("images")?;
    let containerd = Containerd::start(&machine, sandbox, &work).await?;
    let archive = work.join("image.tar");
    let images = tokio::task::spawn_blocking(catalogue::fixed).await??;
    for image in images {
        let target = archive.clone();
        tokio::task::spawn_blocking(move || image.write(&target)).await??;
        containerd.import(&machine, sandbox, &archive).await?;
        fs::remove_file(&archive).context("remove the archive")?;
    }
    containerd.stop().await?;
    drop(machine);
    // Between file systems a rename does not do.
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(work.join("root")).arg(&temporary);
    sandbox.run(&copy, crate::wait::LIMIT).await?.success().context("copy the images to the cache")?;
    remove_old(cache)?;
    fs::rename(&temporary, folder).context("keep the images")
}

/// Those of other contents: each takes half a gigabyte.
fn remove_old(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).context("read the cache")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            bail!("remove {}: {error}", entry.path().display());
        }
    }
    Ok(())
}
