//! The gRPC listeners: limits, TLS, authentication, health and reflection around the service.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use alluxio_preload_api::{FILE_DESCRIPTOR_SET, v1::preload_service_server::PreloadServiceServer};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::{Server, server::TcpIncoming},
};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use crate::{
    accept::{TlsIncoming, greeted},
    answers::Answers,
    auth::Authentication,
    credentials::Access,
    metrics::Metrics,
    observe::Observe,
    panics::CatchPanicLayer,
    requests::WholeLayer,
    service::Service,
};

/// Requests are a path and a few numbers; labels may add 10 KiB.
const MAX_REQUEST: usize = 64 * 1024;
/// Streams on one connection: a proxy may carry hundreds of watchers.
const MAX_STREAMS: u32 = 1024;
/// The name of a service. Its messages are the only ones that nobody has to show a token for.
const MAX_HEALTH_REQUEST: usize = 512;
/// A peer that vanished without a word is noticed after interval + timeout, and its watches end.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Metadata beyond a token and a trace id is no honest client's.
const MAX_HEADERS: u32 = 16 * 1024;

/// The listeners cannot be set up. The operator corrects the flag that is named.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("cannot listen on --unix-socket {path}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("reflection cannot be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
}

type Layers = Stack<WholeLayer, Stack<CatchPanicLayer, Identity>>;

/// Everything a listener serves.
#[derive(Clone)]
pub struct Api {
    service: Service,
    metrics: Metrics,
    health: HealthReporter,
    requests: WholeLayer,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Api {
    #[must_use]
    pub fn new(service: Service, metrics: Metrics) -> Self {
        Self { service, metrics, health: HealthReporter::new(), requests: WholeLayer::new() }
    }

    /// What grpc.health.v1 answers, for the server and for the service.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        self.health.set_service_status("", status).await;
        self.health.set_service_status("preload.v1.PreloadService", status).await;
    }

    fn routes(&self, authentication: Authentication) -> Result<Routes, ServerError> {
        let service = PreloadServiceServer::new(self.service.clone()).max_decoding_message_size(MAX_REQUEST);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that grpcurl shows the details of errors.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        // Health tells nothing but whether we serve, and probes carry no token.
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.health.clone()),
        )
        .max_decoding_message_size(MAX_HEALTH_REQUEST);
        let service = Answers::new(InterceptedService::new(service, authentication.clone()));
        let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
        let (v1, v1alpha) =
            (v1.max_decoding_message_size(MAX_REQUEST), v1alpha.max_decoding_message_size(MAX_REQUEST));
        Ok(Routes::new(Observe::new(service, self.metrics.clone()))
            .add_service(InterceptedService::new(v1, authentication.clone()))
            .add_service(InterceptedService::new(v1alpha, authentication))
            .add_service(health))
    }

    fn server(&self) -> Server<Layers> {
        Server::builder()
            .layer(CatchPanicLayer)
            .layer(self.requests.clone())
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADERS)
    }

    /// Serves TCP until `stop`, with TLS and authentication as `access` says at the moment.
    pub async fn serve_tcp(
        &self,
        listener: TcpListener,
        access: Access,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let server = self.server().add_routes(self.routes(Authentication::new(access.clone()))?);
        let stop = stop.cancelled_owned();
        if access.has_tls() {
            let incoming = greeted(TlsIncoming::new(listener, access, self.metrics.clone()));
            Ok(server.serve_with_incoming_shutdown(incoming, stop).await?)
        } else {
            let incoming = greeted(TcpIncoming::from(listener).with_nodelay(Some(true)));
            Ok(server.serve_with_incoming_shutdown(incoming, stop).await?)
        }
    }

    /// Serves the Unix socket `path` until `stop`; who may open it is let in. Removes it afterwards.
    pub async fn serve_unix(
        &self,
        listener: UnixListener,
        path: &Path,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let routes = self.routes(Authentication::default())?;
        let incoming = greeted(UnixListenerStream::new(listener));
        let served = self
            .server()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
        let _ = fs::remove_file(path);
        Ok(served?)
    }
}

/// Binds with mode 0600. A socket that nobody listens on any more is replaced; anything else is left alone.
pub fn bind_unix(path: &Path) -> Result<UnixListener, ServerError> {
    bind(path).map_err(|source| ServerError::Socket { path: path.to_owned(), source })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is no socket"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
        }
        fs::remove_file(path)?;
    }
    // Bound under a private name first: nobody can connect before the mode is set.
    let private = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&private);
    let listener = UnixListener::bind(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600))?;
    fs::rename(&private, path)?;
    Ok(listener)
}
