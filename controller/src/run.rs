//! Puts the parts together, and takes them apart in order.
//!
//! Start: admin port and webhook first, then the schemas, then the election. Stop: not ready, no new
//! reconciliations, those under way end, watches of sidecars end, the lease is given up; loads in sidecars go on.
//! The webhook goes on until nobody asks it any more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, Readiness},
    args::Run,
    credentials::{Admission, Keeper, KeeperConfig},
    lease::{Elector, Leadership},
    metrics::Metrics,
    schema,
    scope::{self, Shared},
    sidecar::AccessError,
    stores::Scope,
    webhook::{EnsureCredentials, NoCredentials, Webhook, WebhookError},
    writer::Writer,
};

/// The process cannot work. The operator acts on the message.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("cannot listen on --admin-listen {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("neither a kubeconfig nor a service account was found; give --kubeconfig, or run in a pod")]
    InferConfig(#[from] kube::config::InferConfigError),
    #[error("cannot make a client of the API server")]
    Client(#[from] kube::Error),
    #[error("the flags for sidecars cannot work")]
    Access(#[from] AccessError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("the admin server failed")]
    Admin(#[source] std::io::Error),
}

/// Works until `stop`.
pub async fn run(args: Run, stop: CancellationToken) -> Result<(), RunError> {
    let address = args.admin_listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let mut config = kubernetes(&args).await?;
    let agent = HeaderValue::from_static(concat!("preload-controller/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let lease = args.lease(&config.default_namespace);
    let client = Client::try_from(config)?;
    let metrics = Metrics::default();
    let config = KeeperConfig { namespace: lease.namespace.clone(), period: args.sidecar.rotate_credentials };
    let keeper = Arc::new(Keeper::new(client.clone(), config, metrics.clone()));
    let managed = args.own_files().is_none();
    let access = Arc::new(args.access(&keeper));
    access.check()?;
    let (readiness, ready) = watch::channel(Readiness::Starting("asking the API server for its CRDs".into()));
    let scopes: Vec<_> = match args.namespaces() {
        none if none.is_empty() => vec![Scope::All],
        namespaces => namespaces.into_iter().map(Scope::Namespace).collect(),
    };
    let credentials: Arc<dyn EnsureCredentials> = match managed {
        true => Arc::new(Admission::new(client.clone(), keeper.clone())),
        false => Arc::new(NoCredentials),
    };
    let authorities = keeper.root();
    let webhook = Webhook::bind(&args, (&client, &scopes), &metrics, credentials, authorities).await?;
    let registration = webhook.as_ref().and_then(Webhook::registration);
    // Off: nothing is in the way.
    let obstacle = webhook.as_ref().map_or_else(|| watch::channel(None).1, Webhook::obstacle);
    let admin_stop = CancellationToken::new();
    let admin = Admin { readiness: ready, webhook: obstacle, metrics: metrics.clone() };
    let admin = admin::serve(listener, admin, admin_stop.clone());
    tracing::info!(admin = %address, identity = lease.identity, namespaces = ?args.namespace, "started");

    let leadership = Leadership::default();
    let writer = Writer::new(client.clone(), &lease.identity, leadership.clone(), metrics.clone());
    let (schemas, watching) = schema::watch(&client);
    let shared = Shared {
        writer,
        metrics: metrics.clone(),
        settings: args.settings(),
        concurrency: args.concurrency,
        schema: schemas.runtime.clone(),
        access,
        keeper: managed.then(|| keeper.clone()),
    };
    let elector = Elector::new(&client, lease, leadership);
    let working = async {
        if !wait_for_crd(schemas.preload, &readiness, &stop).await {
            return;
        }
        let standby = |holder: Option<&str>| {
            tracing::debug!(?holder, "standing by");
            let state = match holder {
                Some(_) => Readiness::Standby,
                None => Readiness::Starting("the API server does not answer when asked for the lease".into()),
            };
            readiness.send_replace(state);
            metrics.leading(false);
        };
        elector
            .run(stop.clone(), standby, |term| {
                metrics.leading(true);
                readiness.send_replace(Readiness::Starting("filling the caches".into()));
                let registration = registration.clone();
                let keeping = term.clone();
                let leading = lead(scopes.clone(), shared.clone(), term, readiness.clone());
                async move {
                    tokio::join!(leading, async {
                        if let Some(registration) = registration {
                            registration.keep(keeping).await;
                        }
                    });
                }
            })
            .await;
    };
    let stopping = async {
        stop.cancelled().await;
        readiness.send_replace(Readiness::Stopping);
    };
    let managing = async {
        if managed || args.webhook.is_certified_by_us() {
            keeper.run(stop.clone()).await;
        }
    };
    let serving = async {
        if let Some(webhook) = webhook {
            webhook.serve(stop.clone()).await;
        }
    };
    let ended = tokio::select! {
        ended = admin => ended.map_err(RunError::Admin),
        ((), (), (), ()) = async { tokio::join!(working, stopping, serving, managing) } => Ok(()),
        () = watching => Ok(()),
    };
    admin_stop.cancel();
    tracing::info!("stopped");
    ended
}

async fn kubernetes(args: &Run) -> Result<Config, RunError> {
    match &args.kubeconfig {
        None => Ok(Config::infer().await?),
        Some(path) => {
            Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default())
                .await?)
        }
    }
}

/// Without Preloads there is nothing to do. False: we are to stop.
async fn wait_for_crd(
    mut preload: watch::Receiver<Option<bool>>,
    readiness: &watch::Sender<Readiness>,
    stop: &CancellationToken,
) -> bool {
    let there = async {
        loop {
            let found = *preload.borrow_and_update();
            match found {
                Some(true) => return,
                Some(false) => {
                    let why = "the CRD preloads.preload.dev is missing: preload-controller crd | kubectl apply --server-side -f -";
                    tracing::warn!("{why}");
                    readiness.send_replace(Readiness::Starting(why.into()));
                }
                None => {}
            }
            if preload.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    stop.run_until_cancelled(there).await.is_some()
}

/// Serves every scope while this replica leads.
async fn lead(
    scopes: Vec<Scope>,
    shared: Shared,
    term: CancellationToken,
    readiness: watch::Sender<Readiness>,
) {
    let mut serving = JoinSet::new();
    let filling = Arc::new(AtomicUsize::new(scopes.len()));
    for scope in scopes {
        let (readiness, filling) = (readiness.clone(), filling.clone());
        let first = AtomicBool::new(true);
        let ready = move || {
            if first.swap(false, Ordering::AcqRel) && filling.fetch_sub(1, Ordering::AcqRel) == 1 {
                tracing::info!("caches are full");
                readiness.send_replace(Readiness::Leading);
            }
        };
        serving.spawn(scope::serve(scope, shared.clone(), term.clone(), ready));
    }
    while let Some(ended) = serving.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a scope failed; starting it all again");
            term.cancel();
        }
    }
}
