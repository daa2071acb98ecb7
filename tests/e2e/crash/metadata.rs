//! SIGKILL while the master loads metadata for us: Alluxio may keep a file that it knows by half.

use crate::outcome::{begin_with, failures};
use crate::support::watch_until;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Result, bail, ensure};
use preload_tests::{Cluster, Sidecar, shared};
use std::time::Duration;

/// About every third kill leaves such a file.
const KILLS: u64 = 20;

/// No load can mend it, so the load says how a person does: and that way is true.
#[tokio::test]
async fn a_file_known_by_half_is_named_with_the_way_out() -> Result<()> {
    let cluster = shared().await?;
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    for round in 0..KILLS {
        let data = cluster.data("half")?;
        for folder in 0..10 {
            data.below(&format!("d{folder}"))?.files(60, 10)?;
        }
        let id = format!("killed-{round}");
        begin_with(&sidecar, Engine::Native, &id, data.path(), 1).await?;
        watch_until(&sidecar, &id, |load| load.state() == State::Listing).await?;
        tokio::time::sleep(Duration::from_millis(60 * (round % 6))).await;
        sidecar.kill9().await?;
        sidecar.restart().await?;
        let load = sidecar.finished(&id).await?;
        if load.state() == State::Loaded {
            cluster.oracle().assert_loaded(data.path(), 1).await?;
            continue;
        }
        ensure!((load.state(), load.reason()) == (State::Failed, Reason::Incomplete), "{load:?}");
        return is_mended(cluster, &sidecar, &id, data.path()).await;
    }
    bail!("no kill left such a file, which proves nothing")
}

async fn is_mended(cluster: &Cluster, sidecar: &Sidecar<'_>, id: &str, path: &str) -> Result<()> {
    for failure in failures(sidecar, id).await? {
        ensure!(failure.reason.contains("`alluxio fs rm --alluxioOnly`"), "{failure:?}");
        cluster.alluxio(&["fs", "rm", "--alluxioOnly", &failure.path]).await?.success()?;
    }
    begin_with(sidecar, Engine::Native, "mended", path, 1).await?;
    let load = sidecar.finished("mended").await?;
    ensure!(load.state() == State::Loaded, "{load:?}");
    cluster.oracle().assert_loaded(path, 1).await
}
