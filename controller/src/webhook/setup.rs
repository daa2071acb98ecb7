//! Makes the webhook of flags.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use futures_util::future::BoxFuture;
use kube::Client;
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    EnsureCredentials, Injector, Obstacle, OwnPod, Ports, Registration, ServingCertificate, Source,
    from_files, from_root, names, review, server,
};
use crate::{args::Run, credentials::Root, metrics::Metrics, stores::Scope};

/// The webhook cannot be set up. The operator acts on the message.
#[derive(Debug, Error)]
pub enum WebhookError {
    #[error("cannot listen on --webhook-listen {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A webhook whose port is bound, and which does not serve yet.
pub struct Webhook {
    listener: TcpListener,
    routes: Router,
    certificates: watch::Receiver<Option<Arc<ServingCertificate>>>,
    /// Makes certificates as long as it is polled.
    maker: BoxFuture<'static, ()>,
    obstacle: watch::Sender<Obstacle>,
    registration: Option<Registration>,
}

impl Webhook {
    /// None: it is off.
    pub async fn bind(
        args: &Run,
        (client, scopes): (&Client, &[Scope]),
        metrics: &Metrics,
        credentials: Arc<dyn EnsureCredentials>,
        roots: watch::Receiver<Option<Arc<Root>>>,
    ) -> Result<Option<Self>, WebhookError> {
        let flags = &args.webhook;
        let Some(address) = flags.webhook_listen.0 else { return Ok(None) };
        let listener =
            TcpListener::bind(address).await.map_err(|source| WebhookError::Listen { address, source })?;
        let files = flags.webhook_cert.clone().zip(flags.webhook_key.clone());
        let (sender, certificates) = watch::channel(None);
        let maker: BoxFuture<'static, ()> = match files {
            Some(files) => Box::pin(from_files(files, sender)),
            None => Box::pin(from_root(roots, names(&flags.webhook_service, address.ip()), sender)),
        };
        let source = match (&args.injection.sidecar_image, OwnPod::from_environment()) {
            (Some(image), _) => Source::Flag(image.clone()),
            (None, Some(pod)) => Source::Pod(pod),
            (None, None) => {
                tracing::warn!(
                    "no sidecar is injected: give --sidecar-image, or set POD_NAME and POD_NAMESPACE"
                );
                Source::Unknown
            }
        };
        let injector = Injector::new(
            client.clone(),
            (args.injection.options(), args.injection.native_sidecar),
            source,
            (args.injection.host_ports, Ports::new(scopes.to_vec())),
            credentials,
            args.namespaces(),
        );
        let registration = flags
            .webhook_configuration
            .as_ref()
            .map(|name| Registration::new(client, name, certificates.clone()));
        let (obstacle, _) = watch::channel(Some("the webhook has no certificate yet".to_owned()));
        let routes = review::routes(Arc::new(injector), metrics.clone());
        tracing::info!(webhook = %address, "the admission webhook listens");
        Ok(Some(Self { listener, routes, certificates, maker, obstacle, registration }))
    }

    /// Why it does not serve.
    #[must_use]
    pub fn obstacle(&self) -> watch::Receiver<Obstacle> {
        self.obstacle.subscribe()
    }

    /// For the leader.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        self.registration.clone()
    }

    /// Serves until `stop`, and for some seconds after it.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { listener, routes, certificates, maker, obstacle, registration: _ } = self;
        let serving = server::serve(listener, routes, certificates, obstacle, stop);
        tokio::select! {
            () = serving => {}
            () = maker => {}
        }
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("listener", &self.listener).finish_non_exhaustive()
    }
}
