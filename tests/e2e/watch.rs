//! WatchLoad through our client: it goes on across restarts of the sidecar and cuts of the network.

use crate::crash::{Course, STRAIGHT, assert_continues, loading};
use crate::support::{rough, watch_until};
use alluxio_preload_api::client::{Client, ClientConfig, Update, WatchOptions};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result};
use preload_tests::{Exit, Proxy, wait};

#[tokio::test]
async fn a_watch_goes_on_across_restarts() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, _) = loading(cluster, "watch-restart", Course { files: 100, ..STRAIGHT }).await?;
    let client = Client::new(ClientConfig::new(sidecar.address().parse()?))?;
    let watching = async {
        let mut watch = client.watch_load("a", WatchOptions::default());
        let (mut loads, mut lost) = (Vec::<Load>::new(), 0);
        while let Some(update) = watch.next().await {
            match update? {
                Update::Load(load) => loads.push(*load),
                Update::Lost { .. } => lost += 1,
            }
        }
        anyhow::Ok((loads, lost))
    };
    let restarting = async {
        watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
        sidecar.kill9().await?;
        sidecar.restart().await?;
        watch_until(&sidecar, "a", |load| load.state() == State::Loading).await?;
        assert_eq!(sidecar.terminate().await?, Exit::Code(0));
        sidecar.restart().await
    };
    let both = async { tokio::try_join!(watching, restarting) };
    let ((loads, lost), ()) = tokio::time::timeout(2 * wait::LIMIT, both).await.context("the watch")??;
    assert!(lost >= 2, "two restarts, and {lost} cuts");
    for pair in loads.windows(2) {
        assert_continues(&pair[0], &pair[1])?;
    }
    assert_eq!(loads.last().context("a load")?.state(), State::Loaded);
    STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_watch_goes_on_across_cuts_of_the_network() -> Result<()> {
    let cluster = rough().await?;
    let (data, sidecar, _) = loading(cluster, "watch-cut", Course { files: 200, ..STRAIGHT }).await?;
    let proxy = Proxy::start(cluster.sandbox().free_address(), sidecar.address()).await?;
    let client = Client::new(ClientConfig::new(proxy.address().parse()?))?;
    let mut watch = client.watch_load("a", WatchOptions::default());
    let (mut loads, mut cuts, mut lost) = (Vec::<Load>::new(), 0, 0);
    let watching = async {
        while let Some(update) = watch.next().await {
            match update? {
                Update::Load(load) => {
                    // Once before the load runs, twice while it does.
                    let wanted = if load.state() == State::Loading { 3 } else { 1 };
                    loads.push(*load);
                    if cuts < wanted {
                        cuts += 1;
                        proxy.cut().await;
                    }
                }
                // Refused once more before the network is whole again.
                Update::Lost { .. } => {
                    lost += 1;
                    if lost % 2 == 0 {
                        proxy.mend().await?;
                    }
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(2 * wait::LIMIT, watching).await.context("the watch hangs")??;
    assert_eq!((cuts, lost >= 6), (3, true), "{lost} breaks were noticed");
    for pair in loads.windows(2) {
        assert_continues(&pair[0], &pair[1])?;
    }
    assert_eq!(loads.last().context("a load")?, &sidecar.get_load("a").await?);
    STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;
    sidecar.assert_quiet()
}
