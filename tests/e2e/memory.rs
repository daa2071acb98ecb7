//! Under the memory limit of a container: what is needed is stated, less makes the heap smaller, and what the
//! kernel ends is not the sidecar.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::Result;
use preload_tests::{Exit, MIB, MemoryGroup, Setup, load, shared};

use crate::outcome::{assert_repaired, begin_with};

/// What the injected container asks for at most.
const LIMIT: u64 = 512 * MIB;

#[tokio::test]
async fn a_load_fits_into_the_limit_that_is_stated() -> Result<()> {
    let cluster = shared().await?;
    let files: usize = std::env::var("PRELOAD_TESTS_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let data = cluster.data("memory")?;
    data.files(files, 1024)?;
    let group = MemoryGroup::new(cluster.sandbox(), LIMIT)?;
    let setup = Setup::new(cluster).entering(group.enter()).argument("--max-running=1");
    let mut sidecar = setup.start().await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    sidecar.in_state("a", State::Loaded).await?;
    assert_eq!(group.killed().unwrap_or(0), 0, "at most {} MiB were used", group.peak()? / MIB);
    eprintln!("peak: {} MiB", group.peak()? / MIB);
    let log = sidecar.log();
    assert!(log.contains("heap_mib=256") && log.contains("limit_mib=512"), "{log}");
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    Ok(())
}

#[tokio::test]
async fn a_command_that_the_kernel_ends_takes_nothing_with_it() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("oom")?;
    data.files(20, 1024)?;
    let group = MemoryGroup::new(cluster.sandbox(), LIMIT)?;
    let folder = cluster.sandbox().folder("greedy")?;
    let (launcher, seen) = (folder.join("alluxio"), folder.join("seen"));
    // The first time that it loads it wants more than there is: nothing ends a line, so that tail keeps it all.
    let script = format!(
        "#!/bin/sh\nif [ \"$1 $2\" = \"fs distributedLoad\" ] && [ $# -gt 2 ] && [ ! -e '{seen}' ]; then\n\
         touch '{seen}'\n  head -c 4000000000 /dev/zero | tail -n 1 >/dev/null || exit 137\n  exit 137\nfi\n\
         exec '{}' \"$@\"\n",
        cluster.launcher().display(),
        seen = seen.display(),
    );
    fs::write(&launcher, script)?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    let setup = Setup::new(cluster).entering(group.enter()).argument("--max-running=1").launcher(&launcher);
    let mut sidecar = setup.start().await?;
    begin_with(&sidecar, Engine::DistributedLoad, "a", data.path(), 1).await?;
    let loaded = sidecar.in_state("a", State::Loaded).await?;
    assert!(seen.exists(), "the command was not run: {loaded:?}");
    assert_repaired(&loaded)?;
    assert_ne!(group.killed(), Some(0), "the kernel ended nothing");
    assert_eq!(sidecar.terminate().await?, Exit::Code(0), "the sidecar is the one that was started");
    Ok(())
}
