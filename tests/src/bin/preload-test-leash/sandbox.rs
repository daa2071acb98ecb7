//! A loopback network and a directory.

use super::say;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use preload_tests::{cgroup, processes};
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Held on the last address of a claimed network for as long as the claim lasts.
const CLAIM_PORT: u16 = 19_990;
/// A file that says that a directory is wanted.
const KEPT: &str = "kept";
/// Age of a directory past which its owner has locked it.
const SETTLED: Duration = Duration::from_secs(60);
/// What we kill is gone within milliseconds; past this the machine is stuck.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn sandbox() -> Result<()> {
    let (network, claim) = claim_network()?;
    let directory =
        tempfile::Builder::new().prefix(cgroup::PREFIX).tempdir().context("make a directory")?.keep();
    let lock = File::open(&directory).context("open the directory")?;
    lock.lock().context("lock the directory")?;
    sweep();
    say(&format!("claimed {network} {}", directory.display()))?;
    std::io::stdin().lock().read_to_end(&mut Vec::new()).context("read standard input")?;
    let limit = Instant::now() + REMOVAL_LIMIT;
    while !processes::naming(&directory).is_empty() && Instant::now() < limit {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    if std::env::var_os("PRELOAD_TESTS_KEEP").is_some() {
        fs::write(directory.join(KEPT), "").context("keep the directory")?;
        eprintln!("kept {}", directory.display());
    } else {
        // First: a directory that is left tells the next run of both.
        remove_memory(&directory);
        // Containers of a machine do not name it; their last files may come while we remove.
        while let Err(error) = fs::remove_dir_all(&directory) {
            if Instant::now() >= limit {
                return Err(error).with_context(|| format!("remove {}", directory.display()));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    drop(claim);
    Ok(())
}

/// Removes the directories of runs that were killed together with their leashes: those that nobody has locked.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(cgroup::PREFIX)
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
            && !path.join(KEPT).exists()
            // One that was made a moment ago is not locked yet.
            && entry.metadata().and_then(|found| found.modified()).is_ok_and(|time| {
                time.elapsed().is_ok_and(|age| age > SETTLED)
            })
            && File::open(&path).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            // Not ours to complain about.
            remove_memory(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// What the owner of a directory keeps in memory, if anything.
fn remove_memory(directory: &Path) {
    if let Some(memory) = preload_tests::sandbox::memory_of(directory) {
        let _ = fs::remove_dir_all(memory);
    }
}

/// A free 127.x.y, starting at a place that depends on our pid so that two runs seldom meet. The low
/// networks stay free for people.
fn claim_network() -> Result<(String, TcpListener)> {
    const FIRST: u32 = 64 << 8;
    const COUNT: u32 = (250 - 64) << 8;
    for step in 0..COUNT {
        let number = FIRST + (std::process::id().wrapping_mul(613) + step) % COUNT;
        let network = format!("127.{}.{}", number >> 8, number & 255);
        match TcpListener::bind(format!("{network}.254:{CLAIM_PORT}")) {
            Ok(claim) => return Ok((network, claim)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context(format!("bind {network}.254")),
        }
    }
    bail!("every loopback network is taken")
}
