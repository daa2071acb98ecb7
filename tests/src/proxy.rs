//! A network between a client and a server that a test can cut and slow down.

use anyhow::{Context, Result};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes that cross at once.
const CHUNK: usize = 1 << 16;

/// Forwards TCP connections. Dropping it ends all of them.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    target: String,
    /// In microseconds.
    delay: Arc<AtomicU64>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Listens on `address` for connections to `target`.
    pub async fn start(address: String, target: &str) -> Result<Self> {
        let proxy =
            Self { address, target: target.to_owned(), delay: Arc::default(), running: Mutex::default() };
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
        self.delay.store(delay.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Accepts connections again.
    pub async fn mend(&self) -> Result<()> {
        self.cut().await;
        let listener = TcpListener::bind(&self.address).await.context("listen as a proxy")?;
        let running = tokio::spawn(forward(listener, self.target.clone(), self.delay.clone()));
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

/// Until dropped; its connections end with it.
async fn forward(listener: TcpListener, target: String, delay: Arc<AtomicU64>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, delay) = (target.clone(), delay.clone());
        connections.spawn(async move {
            let server = TcpStream::connect(target).await?;
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            // A side that has nothing more to say may still listen.
            tokio::try_join!(relay(from_client, to_server, &delay), relay(from_server, to_client, &delay))
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Until one side has said everything.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &AtomicU64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        let delay = Duration::from_micros(delay.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}
