//! What Alluxio cannot show, or not yet.

use crate::outcome::{begin_with, failed, failures, loaded, shown, wish};
use alluxio_preload_api::v1::load::Reason;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result};
use preload_tests::{Sidecar, shared, wait};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

/// Alluxio skips names with `?` or `\`, and all of a directory that holds a name which is not UTF-8. Nobody
/// above it can see them: a documented limit. But a name with `\` also hides what is below its neighbours from
/// a recursive listing, though not from others.
#[tokio::test]
async fn names_that_alluxio_cannot_see() -> Result<()> {
    cannot_be_seen(Engine::DistributedLoad).await
}

#[tokio::test]
async fn names_that_alluxio_cannot_see_natively() -> Result<()> {
    cannot_be_seen(Engine::Native).await
}

async fn cannot_be_seen(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("unseen")?;
    data.files(3, KIB)?;
    data.below("empty")?;
    let seen = ["below/seen", "below/deep/seen", "below/deep/deeper/seen"];
    let unseen = ["what?", "back\\slash", "below/what?", "below/deep/back\\slash", "wh?t/seen"];
    for name in seen.iter().chain(&unseen) {
        data.file(name, KIB)?;
    }
    begin_with(&sidecar, engine, "unseen", data.path(), 1).await?;
    let load = loaded(&sidecar, "unseen").await?;
    assert_eq!(load.progress.context("progress")?.files_total, 6);
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!((copies.files.len(), copies.fewest()), (6, 1), "{copies:?}");

    let empty = cluster.data("not-utf-8")?;
    empty.files(3, KIB)?;
    fs::write(empty.ufs().join(OsStr::from_bytes(b"caf\xe9")), "latin 1")?;
    begin_with(&sidecar, engine, "empty", empty.path(), 1).await?;
    let load = loaded(&sidecar, "empty").await?;
    assert_eq!(load.reason(), Reason::Empty, "{}", shown(&load));
    assert_eq!(load.message, format!("there are no data below {}", empty.path()));
    assert_eq!(load.progress.context("progress")?.files_total, 0);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_named() -> Result<()> {
    still_being_written(Engine::DistributedLoad).await
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_named_by_a_native_load() -> Result<()> {
    still_being_written(Engine::Native).await
}

async fn still_being_written(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("written")?;
    data.files(3, KIB)?;
    cluster.oracle().tree(data.path()).await?;
    let source = cluster.sandbox().folder("fifo")?.join("source");
    nix::unistd::mkfifo(&source, nix::sys::stat::Mode::S_IRWXU)?;
    let target = format!("{}/open", data.path());
    let arguments = ["fs", "copyFromLocal", &source.to_string_lossy(), &target];
    let writing = cluster.alluxio(&arguments);

    let judging = async {
        // Alluxio's client creates the file, then waits for us to write.
        let mut pipe = tokio::fs::OpenOptions::new().write(true).open(&source).await?;
        wait::until("the open file", wait::LIMIT, async || {
            let tree = cluster.oracle().tree(data.path()).await?;
            Ok(tree.paths().contains(target.as_str()).then_some(()))
        })
        .await?;
        let wish = wish("open", data.path(), 1, |spec| {
            spec.set_engine(engine);
            spec.max_attempts = 1;
        });
        sidecar.start_load(wish?).await?;
        let load = failed(&sidecar, "open", Reason::Incomplete).await?;
        let failures = failures(&sidecar, "open").await?;
        assert_eq!(failures.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), [target.as_str()]);
        assert!(failures[0].reason.starts_with("the file is still being written"), "{failures:?}");
        assert_eq!(load.progress.context("progress")?.files_cached, 3);
        tokio::io::AsyncWriteExt::write_all(&mut pipe, &[7; 3000]).await?;
        tokio::io::AsyncWriteExt::flush(&mut pipe).await?;
        anyhow::Ok(())
    };
    let (written, judged) = tokio::join!(writing, judging);
    judged?;
    written?.success()?;
    // Alluxio writes it to the under file system, with which the oracle compares, some time after its end.
    wait::until("the file in the under file system", wait::LIMIT, async || {
        Ok((fs::metadata(data.ufs().join("open"))?.len() == 3000).then_some(()))
    })
    .await?;
    begin_with(&sidecar, engine, "closed", data.path(), 1).await?;
    let load = loaded(&sidecar, "closed").await?;
    assert_eq!(load.progress.context("progress")?.files_cached, 4);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}
