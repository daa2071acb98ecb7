//! A way to the API server that counts the writes that pass, and can act right after one.

use crate::kubernetes::Kubernetes;
use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::Client;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Largest request body.
const BODY_LIMIT: usize = 16 << 20;

type Action = Box<dyn FnOnce() + Send>;

/// Forwards plain HTTP on loopback to the API server, as the administrator. Dropping it ends it.
#[derive(Debug)]
pub struct Gatekeeper {
    kubeconfig: PathBuf,
    gate: Arc<Gate>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Gate {
    writes: AtomicUsize,
    /// Done when so many writes have been answered, before the answer is passed on.
    trap: Mutex<Option<(usize, Action)>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("writes", &self.writes).finish_non_exhaustive()
    }
}

impl Gatekeeper {
    pub async fn start(kubernetes: &Kubernetes) -> Result<Self> {
        let sandbox = kubernetes.sandbox();
        let address = sandbox.free_address();
        let listener = TcpListener::bind(&address).await.context("listen as a gatekeeper")?;
        let folder = sandbox.folder("gatekeeper")?;
        let kubeconfig = folder.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: gate\n\
             clusters: [{{name: gate, cluster: {{server: 'http://{address}'}}}}]\n\
             users: [{{name: gate, user: {{}}}}]\n\
             contexts: [{{name: gate, context: {{cluster: gate, user: gate}}}}]\n"
        );
        std::fs::write(&kubeconfig, text).context("write the gatekeeper's kubeconfig")?;
        let gate = Arc::<Gate>::default();
        let routes =
            axum::Router::new().fallback(forward).with_state((kubernetes.client().await?, gate.clone()));
        // It ends when it is aborted; errors of connections are the callers' to see.
        let serving = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { kubeconfig, gate, serving })
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes that were answered since the start or the last trap, leases and events apart.
    pub fn writes(&self) -> usize {
        self.gate.writes.load(Ordering::SeqCst)
    }

    /// Begins to count anew, and does `action` when write number `number`, from 1, has been carried out, before
    /// the caller hears of it.
    pub fn trap(&self, number: usize, action: impl FnOnce() + Send + 'static) {
        let mut trap = self.gate.trap.lock().unwrap_or_else(PoisonError::into_inner);
        self.gate.writes.store(0, Ordering::SeqCst);
        *trap = Some((number, Box::new(action)));
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(State((client, gate)): State<(Client, Arc<Gate>)>, request: Request) -> Response {
    match pass(client, &gate, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn pass(client: Client, gate: &Gate, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let is_write = parts.method != Method::GET && !path.contains("/leases") && !path.contains("/events");
    let body = to_bytes(body, BODY_LIMIT).await.context("read the request")?;
    parts.headers.remove(header::HOST);
    let body = kube::client::Body::from(body.to_vec());
    let answer =
        client.send(axum::http::Request::from_parts(parts, body)).await.context("ask the API server")?;
    if is_write && answer.status().is_success() {
        let number = gate.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let mut trap = gate.trap.lock().unwrap_or_else(PoisonError::into_inner);
        if trap.as_ref().is_some_and(|(at, _)| *at == number)
            && let Some((_, action)) = trap.take()
        {
            action();
        }
    }
    Ok(answer.map(Body::new))
}
