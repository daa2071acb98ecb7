//! Clients that do nothing wrong but are many.

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{CancelLoadRequest, GetLoadRequest, WatchLoadRequest};
use anyhow::{Result, ensure};
use preload_tests::{Sandbox, Sidecar, http, load, wait};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::House;

fn clients(sidecar: &Sidecar<'_>, number: usize) -> Result<Vec<PreloadServiceClient<Channel>>> {
    (0..number).map(|_| sidecar.client()).collect()
}

#[tokio::test]
async fn a_thousand_connections() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let mut asked = JoinSet::new();
        let clients = clients(&house.sidecar, 1_000)?;
        for mut client in clients.iter().cloned() {
            let request = GetLoadRequest { load_id: "honest".into() };
            asked.spawn(async move { client.get_load(request).await.map(|answer| answer.into_inner().id) });
        }
        for answer in asked.join_all().await {
            assert_eq!(answer?, "honest");
        }
        // With all of them open.
        house.serves_others().await
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

#[tokio::test]
async fn ten_thousand_streams() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut number = 0;
    let attack = async || {
        number += 1;
        let watched = format!("watched-{number}");
        house.sidecar.start_load(load(&watched, &format!("/{watched}"), 1)).await?;
        let mut watchers = JoinSet::new();
        for client in clients(&house.sidecar, 10)? {
            for _ in 0..1_000 {
                let (mut client, load_id) = (client.clone(), watched.clone());
                watchers.spawn(async move {
                    let request = WatchLoadRequest { load_id, ..WatchLoadRequest::default() };
                    let mut stream = client.watch_load(request).await?.into_inner();
                    let mut last = None;
                    while let Some(load) = stream.message().await? {
                        last = Some(load.state());
                    }
                    Ok::<_, tonic::Status>(last)
                });
            }
        }
        watched_by(&house, 10_000).await?;
        house.serves_others().await?;
        // They all hear of the end.
        house.sidecar.client()?.cancel_load(CancelLoadRequest { load_id: watched }).await?;
        for end in watchers.join_all().await {
            assert_eq!(end?, Some(State::Cancelled));
        }
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// Until as many watches are open.
pub(super) async fn watched_by(house: &House<'_>, number: usize) -> Result<()> {
    let wanted = format!("preload_watchers {number}");
    wait::until("the watchers", wait::LIMIT, async || {
        let (_, text) = http::get(house.sidecar.admin_address(), "/metrics").await?;
        let watchers = text.lines().find(|line| line.starts_with("preload_watchers "));
        ensure!(watchers == Some(&wanted), "{watchers:?}");
        Ok(Some(()))
    })
    .await
}
