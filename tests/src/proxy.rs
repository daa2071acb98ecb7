//! A network between a client and a server that a test can cut, slow down, and let swallow everything.

use anyhow::{Context, Result};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes that cross at once.
const CHUNK: usize = 1 << 16;

/// What happens to what crosses.
#[derive(Debug, Clone)]
struct Weather {
    /// In microseconds.
    delay: Arc<AtomicU64>,
    silent: Arc<watch::Sender<bool>>,
}

/// Forwards TCP connections. Dropping it ends all of them.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    target: String,
    weather: Weather,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Listens on `address` for connections to `target`.
    pub async fn start(address: String, target: &str) -> Result<Self> {
        let weather = Weather { delay: Arc::default(), silent: Arc::new(watch::Sender::new(false)) };
        let proxy = Self { address, target: target.to_owned(), weather, running: Mutex::default() };
        proxy.mend().await?;
        Ok(proxy)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends every connection without a word, and refuses new ones.
    pub async fn cut(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.abort();
            // An error: it was aborted, which is what we wait for.
            let _ = running.await;
        }
    }

    /// From now on everything takes so long to cross, either way.
    pub fn delay(&self, delay: Duration) {
        self.weather.delay.store(delay.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// From now on nothing crosses, either way, and nobody is told; what was on its way arrives when it ends.
    pub fn silence(&self, silent: bool) {
        self.weather.silent.send_replace(silent);
    }

    /// Accepts connections again.
    pub async fn mend(&self) -> Result<()> {
        self.cut().await;
        let listener = TcpListener::bind(&self.address).await.context("listen as a proxy")?;
        let running = tokio::spawn(forward(listener, self.target.clone(), self.weather.clone()));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner) {
            running.abort();
        }
    }
}

impl Weather {
    /// What is here now may cross.
    async fn clears(&self) {
        let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // An error: the sender is gone, and we with it.
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }
}

/// Until dropped; its connections end with it.
async fn forward(listener: TcpListener, target: String, weather: Weather) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, weather) = (target.clone(), weather.clone());
        connections.spawn(async move {
            weather.clears().await;
            let server = TcpStream::connect(target).await?;
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            // A side that has nothing more to say may still listen.
            tokio::try_join!(relay(from_client, to_server, &weather), relay(from_server, to_client, &weather))
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Until one side has said everything.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: &Weather) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        weather.clears().await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}
