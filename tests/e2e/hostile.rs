//! Clients that mean harm, or are broken: memory stays bounded, they are cut in the end, and honest ones are served.

mod frames;

use std::time::Duration;

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{CancelLoadRequest, GetLoadRequest, WatchLoadRequest};
use anyhow::{Context, Result, ensure};
use preload_tests::resident::Memory;
use preload_tests::{Sandbox, Setup, Sidecar, load, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// Resident memory that no number of strangers may drive a sidecar above, in MB. Its container has 256 MiB.
const MOST: f64 = 160.0;
/// For one honest call.
const PATIENCE: Duration = Duration::from_secs(20);
/// Until a connection that says nothing more is cut.
const CUT_WITHIN: Duration = Duration::from_secs(90);

struct House<'a> {
    sidecar: Sidecar<'a>,
}

impl<'a> House<'a> {
    /// With a load that waits.
    async fn new(sandbox: &'a Sandbox) -> Result<Self> {
        let sidecar = Setup::alone(sandbox).start().await?;
        sidecar.start_load(load("honest", "/honest", 1)).await?;
        Ok(Self { sidecar })
    }

    /// A client with a connection of its own has its answer.
    async fn serves_others(&self) -> Result<()> {
        let mut client = self.sidecar.client()?;
        let request = GetLoadRequest { load_id: "honest".into() };
        let answer = tokio::time::timeout(PATIENCE, client.get_load(request)).await;
        let answer = answer.context("an honest client is not served")??;
        assert_eq!(answer.into_inner().id, "honest");
        Ok(())
    }

    /// Its memory is and was bounded, and it has no complaint.
    fn is_well(&self) -> Result<()> {
        let Memory { peak, .. } = Memory::of(self.sidecar.pid()?)?;
        ensure!(peak < MOST, "{peak:.0} MB were resident");
        self.sidecar.assert_no_errors()
    }
}

/// Strangers who say no more than `words`, and keep their connections open.
async fn silent_after(words: &[u8]) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(house.sidecar.address()).await?;
        stream.write_all(words).await?;
        strangers.push(stream);
    }
    house.serves_others().await?;
    let mut cut = JoinSet::new();
    for mut stream in strangers {
        cut.spawn(async move {
            let mut rest = Vec::new();
            // An error is an end too.
            tokio::time::timeout(CUT_WITHIN, stream.read_to_end(&mut rest)).await.is_ok()
        });
    }
    ensure!(cut.join_all().await.into_iter().all(|cut| cut), "silent connections stay for ever");
    house.serves_others().await?;
    house.is_well()
}

#[tokio::test]
async fn who_never_speaks_is_cut() -> Result<()> {
    silent_after(b"").await
}

#[tokio::test]
async fn who_stops_in_the_greeting_is_cut() -> Result<()> {
    silent_after(&frames::PREFACE[..10]).await
}

#[tokio::test]
async fn who_stops_in_the_headers_of_a_call_is_cut() -> Result<()> {
    let mut words = frames::greeting();
    let call = frames::call(1, "/preload.v1.PreloadService/GetLoad");
    words.extend(&call[..call.len() - 5]);
    silent_after(&words).await
}

/// One byte of a greeting every now and then.
#[tokio::test]
async fn who_drips_is_cut() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut stream = TcpStream::connect(house.sidecar.address()).await?;
    let drip = async {
        for byte in frames::PREFACE.iter().cycle().take(100) {
            stream.write_all(&[*byte]).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    let outcome = tokio::time::timeout(CUT_WITHIN, drip).await;
    ensure!(matches!(outcome, Ok(Err(_))), "it could go on: {outcome:?}");
    house.serves_others().await?;
    house.is_well()
}

/// HEADERS and RST_STREAM, one after the other (CVE-2023-44487).
#[tokio::test]
async fn rapid_resets_end_the_connection() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut stranger = TcpStream::connect(house.sidecar.address()).await?;
    stranger.write_all(&frames::greeting()).await?;
    let (mut answers, mut calls) = stranger.into_split();
    let reading = tokio::spawn(async move {
        let mut sink = [0; 65_536];
        while answers.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    let flood = async {
        for number in 0..1_000_000_u32 {
            let stream = 2 * number + 1;
            let mut words = frames::call(stream, "/preload.v1.PreloadService/ListLoads");
            words.extend(frames::reset(stream));
            calls.write_all(&words).await?;
        }
        anyhow::Ok(())
    };
    ensure!(flood.await.is_err(), "a million resets were taken");
    reading.await?;
    house.serves_others().await?;
    house.is_well()
}

/// CONTINUATION after CONTINUATION, without an end (CVE-2024-27316).
#[tokio::test]
async fn headers_without_end_are_cut() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut stranger = TcpStream::connect(house.sidecar.address()).await?;
    stranger.write_all(&frames::greeting()).await?;
    stranger.write_all(&frames::endless_call(1)).await?;
    let flood = async {
        for _ in 0..100_000 {
            stranger.write_all(&frames::continuation(1)).await?;
        }
        anyhow::Ok(())
    };
    ensure!(flood.await.is_err(), "a gigabyte of headers was taken");
    house.serves_others().await?;
    house.is_well()
}

#[tokio::test]
async fn giant_metadata_are_refused() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut client = house.sidecar.client()?;
    for size in [20_000, 200_000, 2_000_000] {
        let mut request = Request::new(GetLoadRequest { load_id: "honest".into() });
        request.metadata_mut().insert("x-giant", AsciiMetadataValue::try_from("x".repeat(size))?);
        let refused = client.get_load(request).await;
        ensure!(refused.is_err(), "{size} bytes of metadata were taken");
        // Also on the same connection, if it is still there.
        house.serves_others().await?;
    }
    house.is_well()
}

async fn clients(sidecar: &Sidecar<'_>, number: usize) -> Result<Vec<PreloadServiceClient<Channel>>> {
    let mut clients = Vec::new();
    for _ in 0..number {
        clients.push(sidecar.client()?);
    }
    Ok(clients)
}

#[tokio::test]
async fn a_thousand_connections() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut asked = JoinSet::new();
    let clients = clients(&house.sidecar, 1_000).await?;
    for mut client in clients.iter().cloned() {
        let request = GetLoadRequest { load_id: "honest".into() };
        asked.spawn(async move { client.get_load(request).await.map(|answer| answer.into_inner().id) });
    }
    for answer in asked.join_all().await {
        assert_eq!(answer?, "honest");
    }
    house.serves_others().await?;
    drop(clients);
    house.is_well()
}

#[tokio::test]
async fn ten_thousand_streams() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut watchers = JoinSet::new();
    for client in clients(&house.sidecar, 10).await? {
        for _ in 0..1_000 {
            let mut client = client.clone();
            watchers.spawn(async move {
                let request = WatchLoadRequest { load_id: "honest".into(), ..WatchLoadRequest::default() };
                let mut stream = client.watch_load(request).await?.into_inner();
                let mut last = None;
                while let Some(load) = stream.message().await? {
                    last = Some(load.state());
                }
                Ok::<_, tonic::Status>(last)
            });
        }
    }
    wait::until("the watchers", wait::LIMIT, async || {
        let (_, text) = preload_tests::http::get(house.sidecar.admin_address(), "/metrics").await?;
        let watchers = text.lines().find(|line| line.starts_with("preload_watchers "));
        ensure!(watchers == Some("preload_watchers 10000"), "{watchers:?}");
        Ok(Some(()))
    })
    .await?;
    house.serves_others().await?;
    // They all hear of the end.
    house.sidecar.client()?.cancel_load(CancelLoadRequest { load_id: "honest".into() }).await?;
    for end in watchers.join_all().await {
        assert_eq!(end?, Some(State::Cancelled));
    }
    house.serves_others().await?;
    house.is_well()
}

/// Errors travel in headers, which clients take up to a size.
#[tokio::test]
async fn an_error_never_echoes_what_is_too_long() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut client = house.sidecar.client()?;
    let long = "\u{1}".repeat(50_000);
    let mut wish = load("a", "/a", 1);
    wish.spec.as_mut().context("a spec")?.labels.insert(long.clone(), String::new());
    let list = alluxio_preload_api::v1::ListLoadsRequest { page_token: long, ..Default::default() };
    let refused = [client.start_load(wish).await.err(), client.list_loads(list).await.err()];
    for status in refused {
        let status = status.context("it was taken")?;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().len() < 1_000, "{} bytes", status.message().len());
    }
    house.is_well()
}
