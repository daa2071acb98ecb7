//! Connections of the TCP listener whose TLS handshake is done, with the credentials of the moment.
//!
//! Handshakes run beside each other, in bounded number and time: one that stalls holds up nobody.

use std::{io, pin::Pin, time::Duration};

use futures_util::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::{credentials::Access, metrics::Metrics};

/// A handshake takes milliseconds; on a node in trouble, or from far away, some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each holds some 20 KiB. Beyond, connections wait in the kernel.
const AT_ONCE: usize = 512;
/// Without descriptors, until there is hope again.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends its task when dropped.
pub(crate) struct TlsIncoming {
    done: mpsc::Receiver<TlsStream<TcpStream>>,
    _acceptor: AbortOnDropHandle<()>,
}

impl TlsIncoming {
    pub(crate) fn new(listener: TcpListener, access: Access, metrics: Metrics) -> Self {
        let (sender, done) = mpsc::channel(1);
        let acceptor = tokio::spawn(accept(listener, access, metrics, sender));
        Self { done, _acceptor: AbortOnDropHandle::new(acceptor) }
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.done.poll_recv(context).map(|next| next.map(Ok))
    }
}

async fn accept(
    listener: TcpListener,
    access: Access,
    metrics: Metrics,
    done: mpsc::Sender<TlsStream<TcpStream>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            _ended = handshakes.join_next(), if !handshakes.is_empty() => {}
            accepted = listener.accept(), if handshakes.len() < AT_ONCE => match accepted {
                Ok((stream, peer)) => {
                    let (access, metrics, done) = (access.clone(), metrics.clone(), done.clone());
                    handshakes.spawn(async move {
                        match handshake(stream, &access).await {
                            // An error: the server stops.
                            Ok(stream) => drop(done.send(stream).await),
                            Err(error) => {
                                metrics.handshake_failed();
                                tracing::debug!(%peer, %error, "a connection was refused");
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn handshake(stream: TcpStream, access: &Access) -> io::Result<TlsStream<TcpStream>> {
    let tls = access.tls().ok_or_else(|| io::Error::other("there are no credentials yet"))?;
    stream.set_nodelay(true)?;
    timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)).await?
}
