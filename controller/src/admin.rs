//! The admin port: `/livez`, `/readyz`, `/metrics`. Plain HTTP.

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, webhook::Obstacle};

/// Whether this replica is of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, and why.
    Starting(String),
    /// Another replica works; this one would take over.
    Standby,
    /// It works, and its caches are full.
    Leading,
    Stopping,
}

/// What the handlers see.
#[derive(Clone, Debug)]
pub struct Admin {
    pub readiness: watch::Receiver<Readiness>,
    pub webhook: watch::Receiver<Obstacle>,
    pub metrics: Metrics,
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let readiness = admin.readiness.borrow();
    let serves = matches!(*readiness, Readiness::Leading | Readiness::Standby);
    if let Some(obstacle) = &*admin.webhook.borrow()
        && serves
    {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n"));
    }
    match &*readiness {
        Readiness::Leading => (StatusCode::OK, "ok: leading\n".to_owned()),
        Readiness::Standby => (StatusCode::OK, "ok: standby\n".to_owned()),
        Readiness::Starting(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render())
}
