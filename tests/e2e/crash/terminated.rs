//! SIGTERM: everything is put away in bounded time, and the load goes on later.

use super::{Course, NATIVE, STRAIGHT, assert_continues, has_jobs, loading};
use crate::support::{assert_nothing_works_on, cancel, loaders, rough, watch_until};
use alluxio_preload_api::v1::WatchLoadRequest;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use preload_tests::{Exit, Setup};
use std::time::Duration;
use tonic::Code;

/// A stop ends the command (5 s of grace), its jobs (5 s) and open connections (5 s) one after the other.
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn terminated_while_loading() -> Result<()> {
    terminated(Course { files: 200, ..STRAIGHT }).await
}

#[tokio::test]
async fn terminated_while_loading_natively() -> Result<()> {
    terminated(Course { files: 2000, ..NATIVE }).await
}

async fn terminated(course: Course) -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) = loading(cluster, "terminate", course).await?;
    if course.engine == STRAIGHT.engine {
        has_jobs(cluster, data.path()).await?;
    }
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    let request = || WatchLoadRequest { load_id: "a".to_owned(), ..WatchLoadRequest::default() };
    let mut watch = sidecar.client()?.watch_load(request()).await?.into_inner();
    let before = watch.message().await?.context("the present state")?;
    // A client that holds a watch open and reads nothing.
    let unread = sidecar.client()?.watch_load(request()).await?;

    let stopped = tokio::time::timeout(STOP_LIMIT, sidecar.terminate()).await;
    assert_eq!(stopped.context("it does not stop")??, Exit::Code(0));
    assert_eq!(loaders(cluster, data.path()), []);
    let ended = loop {
        match watch.message().await {
            Ok(Some(load)) => ensure!(load.end_time.is_none(), "{load:?}"),
            Ok(None) => anyhow::bail!("the watch ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    drop(unread);

    sidecar.restart().await?;
    let loaded = course.ends_well(cluster, &sidecar, data.path()).await?;
    assert_continues(&before, &loaded)?;
    sidecar.assert_no_errors()
}

/// A stop does not wait for an Alluxio that is gone, whatever the sidecar has to clear up there.
#[tokio::test]
async fn terminated_while_alluxio_is_silent() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) =
        loading(cluster, "terminate-silent", Course { files: 100, ..STRAIGHT }).await?;
    has_jobs(cluster, data.path()).await?;
    watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
    sidecar.kill9().await?;

    let directory = sidecar.state_directory().to_owned();
    for cancelled in [false, true] {
        let mut alone = Setup::alone(cluster.sandbox()).state_directory(&directory).start().await?;
        if cancelled {
            cancel(&alone, "a").await?;
        }
        let stopped = tokio::time::timeout(STOP_LIMIT / 2, alone.terminate()).await;
        assert_eq!(stopped.context("it does not stop")??, Exit::Code(0));
    }
    sidecar.restart().await?;
    sidecar.in_state("a", State::Cancelled).await?;
    assert_nothing_works_on(cluster, data.path()).await
}
