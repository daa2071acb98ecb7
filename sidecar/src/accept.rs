//! Connections of the listeners: those whose TLS handshake is done, with the credentials of the moment, and the time
//! that a client has to begin.
//!
//! Handshakes run beside each other, in bounded number and time: one that stalls holds up nobody.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use crate::{credentials::Access, metrics::Metrics};

/// A handshake takes milliseconds; on a node in trouble, or from far away, some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each holds some 20 KiB. Beyond, connections wait in the kernel.
const AT_ONCE: usize = 512;
/// Without descriptors, until there is hope again.
const PAUSE: Duration = Duration::from_millis(100);

/// What every HTTP/2 client begins with (RFC 9113, 3.4), in bytes. From then on the keep-alive looks after a connection.
const PREFACE: usize = 24;

/// A connection that ends unless the client has begun to speak HTTP/2 in time.
pub(crate) struct Greeted<S> {
    stream: S,
    /// Bytes still to come, and until when; `None` once they are here.
    waiting: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Greeted<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, waiting: Some((PREFACE, Box::pin(sleep(PATIENCE)))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, waiting } = &mut *self;
        if let Some((_, until)) = waiting
            && until.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        if let Some((left, _)) = waiting {
            *left = left.saturating_sub(buffer.filled().len() - before);
            if *left == 0 {
                *waiting = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Greeted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// Connections whose clients have to begin in time. After one that could not be accepted there is a rest: the next would
/// fail at once, and so on for as long as there are no descriptors.
pub(crate) fn greeted<S>(
    incoming: impl Stream<Item = io::Result<S>>,
) -> impl Stream<Item = io::Result<Greeted<S>>> {
    incoming.then(async |accepted| {
        if let Err(error) = &accepted {
            tracing::debug!(%error, "a connection could not be accepted");
            sleep(PAUSE).await;
        }
        accepted.map(Greeted::new)
    })
}

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

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
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
