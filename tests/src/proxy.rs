//! A network between a client and a server that a test can cut.

use anyhow::{Context, Result};
use std::sync::{Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Forwards TCP connections. Dropping it ends all of them.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    target: String,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Listens on `address` for connections to `target`.
    pub async fn start(address: String, target: &str) -> Result<Self> {
        let proxy = Self { address, target: target.to_owned(), running: Mutex::default() };
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

    /// Accepts connections again.
    pub async fn mend(&self) -> Result<()> {
        self.cut().await;
        let listener = TcpListener::bind(&self.address).await.context("listen as a proxy")?;
        let running = tokio::spawn(forward(listener, self.target.clone()));
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
async fn forward(listener: TcpListener, target: String) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let target = target.clone();
        connections.spawn(async move {
            let mut server = TcpStream::connect(target).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
        while connections.try_join_next().is_some() {}
    }
}
