//! The admin port: `/livez`, `/readyz`, `/metrics`. Plain HTTP, no data of loads but ids and sizes.
//!
//! A connection is one request, and ends soon whatever its client does.

use std::{pin::pin, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    readiness::Readiness,
    service::{Backend, OPENING},
};

/// For a request and its answer. Probes wait seconds at most; metrics are some 100 KB.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a connection. Requests are a line and a few headers.
const BUFFER: usize = 16 * 1024;
/// Without descriptors, until there is hope again.
const PAUSE: Duration = Duration::from_millis(100);

/// What the handlers see.
#[derive(Debug, Clone)]
pub struct Admin {
    pub backend: watch::Receiver<Backend>,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// Cancelled when the sidecar begins to stop.
    pub stopping: CancellationToken,
}

/// Serves until `admin.stopping` is cancelled.
pub async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let stopping = admin.stopping.clone();
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopping.cancelled());
    loop {
        tokio::select! {
            () = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, routes.clone(), graceful.watcher()))),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

async fn answer(stream: TcpStream, routes: Router, watcher: Watcher) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(BUFFER);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(PATIENCE, watcher.watch(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a connection was cut: its client is slow"),
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let (mut reasons, warnings) = admin.readiness.troubles();
    match &*admin.backend.borrow() {
        Backend::Opening => reasons.push(OPENING.to_owned()),
        Backend::Unusable(reason) => reasons.push(reason.to_string()),
        Backend::Ready(_) => {}
    }
    if reasons.is_empty() {
        let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
        (StatusCode::OK, std::iter::once("ok\n".to_owned()).chain(warnings).collect())
    } else {
        reasons.extend(warnings);
        (StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect())
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let (live, ready) = match &*admin.backend.borrow() {
        Backend::Ready(manager) => (manager.live(), admin.readiness.troubles().0.is_empty()),
        Backend::Opening | Backend::Unusable(_) => (Vec::new(), false),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render(&live, ready))
}
