//! Clients that mean harm, or are broken: memory stays bounded, they are cut in the end, and honest ones are served.

mod admin;
mod floods;
mod frames;
mod messages;
mod numbers;
mod readers;
mod silent;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluxio_preload_api::v1::GetLoadRequest;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use anyhow::{Context, Result, ensure};
use preload_tests::resident::Memory;
use preload_tests::{Sandbox, Setup, Sidecar, load};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Resident memory that no number of strangers may drive a sidecar above, in MB. Its container has 256 MiB.
const MOST: f64 = 160.0;
/// For one honest call.
const PATIENCE: Duration = Duration::from_secs(20);
/// Until a connection that says nothing more is cut.
const CUT_WITHIN: Duration = Duration::from_secs(90);
/// Honest clients that are served during an attack, at least.
const HONEST: usize = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// A load is started, which the first time is a write to the disk, and another one asked for.
async fn is_served(address: &str) -> Result<()> {
    let ask = async {
        let mut client = PreloadServiceClient::connect(format!("http://{address}")).await?;
        client.start_load(load("honest-too", "/honest-too", 1)).await?;
        anyhow::Ok(client.get_load(GetLoadRequest { load_id: "honest".into() }).await?)
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await.context("an honest client is not served")??;
    assert_eq!(answer.into_inner().id, "honest");
    Ok(())
}

/// Honest clients until `is_over`, on a thread of their own: they must not wait for the test's strangers.
async fn honest(address: String, served: Arc<AtomicUsize>, is_over: CancellationToken) -> Result<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let all = async {
            while !is_over.is_cancelled() {
                let before = served.load(Ordering::Relaxed);
                is_served(&address).await.with_context(|| format!("after {before} others"))?;
                served.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Nobody listens once the attack has failed.
        let _ = tell.send(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(all)));
    });
    told.await.context("the honest clients panicked")?
}

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

    /// A connection to speak by hand on.
    async fn connect(&self) -> Result<TcpStream> {
        TcpStream::connect(self.sidecar.address()).await.context("connect")
    }

    /// A client with a connection of its own has its answer.
    async fn serves_others(&self) -> Result<()> {
        is_served(self.sidecar.address()).await
    }

    /// Clients have their answers, one after the other, while `attack` goes on: again, if it ends too soon.
    async fn serves_during(&self, mut attack: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        let (served, is_over) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let _over = is_over.clone().drop_guard();
        let attacks = async {
            while served.load(Ordering::Relaxed) < HONEST {
                attack().await?;
            }
            is_over.cancel();
            anyhow::Ok(())
        };
        let honest = honest(self.sidecar.address().to_owned(), Arc::clone(&served), is_over.clone());
        tokio::try_join!(attacks, honest)?;
        Ok(())
    }

    /// Others are still served, its memory is and was bounded, and it has no complaint.
    async fn is_well(&self) -> Result<()> {
        self.serves_others().await?;
        let Memory { peak, .. } = Memory::of(self.sidecar.pid()?)?;
        println!("{peak:.0} MB were resident");
        ensure!(peak < MOST, "{peak:.0} MB were resident");
        self.sidecar.assert_no_errors()
    }
}
