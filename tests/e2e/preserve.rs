//! Loading never endangers data.

use std::fs;

use alluxio_preload_api::v1::{LoadSpec, StartLoadRequest, load::State, load_spec::LoadMetadata};
use anyhow::{Context, Result};
use preload_tests::{Cluster, MIB, Options, Sidecar, load, wait};

/// A listing that loads metadata gives each file it finds a time to live; unset means 0 and DELETE to
/// Alluxio 2.9.3, which then removes the file from the under storage at its next check.
#[tokio::test]
async fn what_a_load_has_listed_never_expires() -> Result<()> {
    let properties = [("alluxio.master.ttl.checker.interval", "1sec")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let cluster = Cluster::start(Options { properties, ..Options::default() }).await?;
    let once = cluster.data("once")?;
    once.files(3, MIB)?;
    let always = cluster.data("always")?;
    always.files(3, MIB)?;
    let sidecar = Sidecar::start(&cluster, &[] as &[&str]).await?;
    sidecar.start_load(load("once", once.path(), 1)).await?;
    let spec = LoadSpec {
        path: always.path().to_owned(),
        load_metadata: LoadMetadata::Always.into(),
        ..LoadSpec::default()
    };
    sidecar.start_load(StartLoadRequest { load_id: "always".into(), spec: Some(spec) }).await?;
    for id in ["once", "always"] {
        sidecar.in_state(id, State::Loaded).await?;
    }

    // The checker has passed over everything when it has removed a file that is younger.
    let sentinel = cluster.data("sentinel")?;
    let file = sentinel.file("gone", 1)?;
    cluster.alluxio(&["fs", "ls", sentinel.path()]).await?.success()?;
    cluster.alluxio(&["fs", "setTtl", "--action", "delete", &file, "1"]).await?.success()?;
    let on_disk = cluster.ufs_path(&file);
    wait::until("the TTL checker to delete the sentinel", wait::LIMIT, async || {
        Ok((!on_disk.try_exists()?).then_some(()))
    })
    .await?;

    for data in [&once, &always] {
        assert_eq!(fs::read_dir(data.ufs())?.count(), 3, "files of {} are gone", data.path());
        let one = fs::read_dir(data.ufs())?.next().context("no file")??;
        let path = format!("{}/{}", data.path(), one.file_name().to_string_lossy());
        let stat = cluster.alluxio(&["fs", "stat", &path]).await?.success()?;
        assert!(stat.contains("ttl=-1"), "{stat}");
        cluster.oracle().assert_loaded(data.path(), 1).await?;
    }
    sidecar.assert_quiet()
}
