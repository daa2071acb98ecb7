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

use crate::{
    metrics::Metrics,
    readiness::Readiness,
    service::{Backend, OPENING},
};

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
    axum::serve(listener, routes).with_graceful_shutdown(stopping.cancelled_owned()).await
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
