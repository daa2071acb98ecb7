//! The admin port: `/livez`, `/readyz`, `/metrics`. Plain HTTP, no data of loads but ids and sizes.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, service::Backend};

/// What the handlers see.
#[derive(Debug, Clone)]
pub struct Admin {
    pub backend: watch::Receiver<Backend>,
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
    axum::serve(listener, routes).with_graceful_shutdown(stopping.cancelled_owned()).await
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match &*admin.backend.borrow() {
        Backend::Ready(_) => (StatusCode::OK, "ok\n".to_owned()),
        Backend::Unusable(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let (live, ready) = match &*admin.backend.borrow() {
        Backend::Ready(manager) => (manager.live(), true),
        Backend::Unusable(_) => (Vec::new(), false),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render(&live, ready))
}
