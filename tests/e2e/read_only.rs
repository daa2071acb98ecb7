//! A container whose root is read-only: nothing but the state directory is written to, neither by the sidecar nor
//! by the commands that it runs.

use std::fs;

use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use preload_tests::{Exit, Setup, SmallDisk, load, shared};

const NOTHING: Option<&str> = None;

#[test]
fn with_a_read_only_root_a_load_needs_the_state_directory_alone() -> Result<()> {
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = outside.block_on(shared())?;
    let data = cluster.data("read-only")?;
    data.files(5, 1024)?;
    SmallDisk::run(async |sandbox, disk| {
        // What the test itself writes, logs of the sidecar among it.
        let own = sandbox.directory();
        mount(Some(own), own, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING).context("bind")?;
        for root in mounted()? {
            if root.starts_with("/proc")
                || root.starts_with("/dev/pts")
                || root.starts_with(&*own.to_string_lossy())
            {
                continue;
            }
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            // Some of the kernel's own refuse; nobody writes there.
            let _ = mount(NOTHING, root.as_str(), NOTHING, flags, NOTHING);
        }
        assert!(fs::write("/tmp/preload-read-only", "x").is_err(), "/tmp is writable still");
        let state = disk.path().join("state");
        let setup = Setup::alone(sandbox).state_directory(&state).with_alluxio(cluster);
        let mut sidecar = setup.start().await?;
        sidecar.start_load(load("a", data.path(), 1)).await?;
        sidecar.in_state("a", State::Loaded).await?;
        let logs = state.join("work/logs");
        assert!(logs.join("shell.log").exists(), "{:?}", fs::read_dir(&logs).map(Iterator::count));
        assert_eq!(sidecar.terminate().await?, Exit::Code(0));
        Ok(())
    })
}

/// Where something is mounted, in this thread's namespace.
fn mounted() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/thread-self/mounts").context("read the mounts")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect())
}
