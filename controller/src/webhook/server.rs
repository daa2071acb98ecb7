//! HTTPS: connections, and the certificate of each.
//!
//! Invariants: a new certificate is shown to connections that come after it, and ends none; connections are
//! bounded in number, and each ends by itself when nothing comes; after `stop` answers that are due are given.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
};
use tokio_util::sync::CancellationToken;

use super::ServingCertificate;

/// An API server keeps a handful.
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two requests, too. API servers close idle connections after 90 s; who closes first may cut off a
/// request, so this is longer.
const HEADERS: Duration = Duration::from_secs(30);
/// How long it goes on after the end has begun: the API server learns late that we are no endpoint any more, and a
/// pod that it cannot ask about would be created without a sidecar.
const LINGER: Duration = Duration::from_secs(5);
/// How long answers that are due may take after that.
const DRAIN: Duration = Duration::from_secs(10);
/// After an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why nothing is served; none: it is.
pub type Obstacle = Option<String>;

/// The certificate cannot be shown. Who made it acts.
#[derive(Debug, Error)]
pub(super) enum CertificateError {
    #[error("no certificate in PEM")]
    Chain(#[source] pem::Error),
    #[error("no private key in PEM")]
    Key(#[source] pem::Error),
    #[error("certificate and key do not work: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves until a while after `stop`; `obstacle` says from when on.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    mut certificates: watch::Receiver<Option<Arc<ServingCertificate>>>,
    obstacle: watch::Sender<Obstacle>,
    stop: CancellationToken,
) {
    let mut acceptor = None;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    certificates.mark_changed();
    // Nobody makes certificates any more: what there is stays.
    let mut last = false;
    let mut end = pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
    });
    loop {
        tokio::select! {
            () = &mut end => break,
            changed = certificates.changed(), if !last => match changed {
                Err(_) => last = true,
                Ok(()) => {
                    let newest = certificates.borrow_and_update().clone();
                    renew(&mut acceptor, newest.as_deref(), &obstacle);
                }
            },
            accepted = accept(&listener, &slots), if acceptor.is_some() => {
                let (Ok((stream, slot)), Some(acceptor)) = (accepted, &acceptor) else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (watcher, routes) = (graceful.watcher(), routes.clone());
                let handshake = TlsAcceptor::clone(acceptor).accept(stream);
                connections.spawn(async move {
                    let _slot = slot;
                    let Ok(Ok(stream)) = timeout(HANDSHAKE, handshake).await else {
                        tracing::debug!("a TLS handshake failed");
                        return;
                    };
                    let mut http = hyper::server::conn::http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
                    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
                    if let Err(error) = watcher.watch(connection).await {
                        tracing::debug!(%error, "a connection failed");
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    obstacle.send_replace(Some("stopping".to_owned()));
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers were still due after {DRAIN:?}");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Small answers; the API server waits for each.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

/// A certificate that does not work leaves the one before in place.
fn renew(
    acceptor: &mut Option<TlsAcceptor>,
    newest: Option<&ServingCertificate>,
    obstacle: &watch::Sender<Obstacle>,
) {
    match newest.map(configuration) {
        None if acceptor.is_none() => {
            obstacle.send_replace(Some("the webhook has no certificate yet".to_owned()));
        }
        None => {}
        Some(Ok(configuration)) => {
            *acceptor = Some(TlsAcceptor::from(Arc::new(configuration)));
            tracing::info!("the webhook has a new certificate");
            obstacle.send_replace(None);
        }
        Some(Err(error)) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a certificate of the webhook is unusable"
            );
            if acceptor.is_none() {
                obstacle.send_replace(Some(format!("the webhook's certificate is unusable: {error}")));
            }
        }
    }
}

pub(super) fn configuration(certificate: &ServingCertificate) -> Result<ServerConfig, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(CertificateError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).map_err(CertificateError::Key)?;
    // Named, so that it does not matter which provider others have made the default of the process.
    let configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(configuration)
}
