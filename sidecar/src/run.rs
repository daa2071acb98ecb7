//! Puts the parts together, and takes them apart in order.
//!
//! Start: listeners first, then the store; until it is open every call says why not. Stop: not ready, no
//! new connections, watches end, children end, store closed.

use std::{fs, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin},
    alluxio::Alluxio,
    clock::Clock,
    config::Serve,
    engine::strays::{self, Mark},
    manager::Manager,
    metrics::Metrics,
    server::{Api, ServerError},
    service::{Backend, Service},
    store::Store,
};

/// Between two tries to open the store.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// For connections to end by themselves; clients resume their watches elsewhere.
const DRAIN: Duration = Duration::from_secs(5);

/// The process cannot serve. The operator acts on the message.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("cannot listen on {flag} {address}: {source}")]
    Listen { flag: &'static str, address: std::net::SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("admin server failed: {0}")]
    Admin(std::io::Error),
    #[error("a server task panicked: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

/// Serves until `shutdown` is cancelled.
pub async fn run(config: Serve, shutdown: CancellationToken) -> Result<(), RunError> {
    let listen = |flag, address| async move {
        TcpListener::bind(address).await.map_err(|source| RunError::Listen { flag, address, source })
    };
    let grpc = listen("--listen", config.listen).await?;
    let http = listen("--admin-listen", config.admin_listen).await?;
    let metrics = Metrics::new();
    let opening = Backend::Unusable("the store is being opened; try again".into());
    let (publish, backend) = watch::channel(opening);
    let api = Api::new(Service::new(backend.clone(), metrics.clone()), metrics.clone());
    api.set_serving(false).await;
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, state_dir = %config.state_dir.display(), "serving");

    let stop = CancellationToken::new();
    let mut servers: JoinSet<Result<(), RunError>> = JoinSet::new();
    let admin = Admin { backend, metrics: metrics.clone(), stopping: shutdown.clone() };
    servers.spawn(async move { admin::serve(http, admin).await.map_err(RunError::Admin) });
    let (tcp, token, security) = (api.clone(), stop.clone(), config.security.clone());
    servers.spawn(async move { Ok(tcp.serve_tcp(grpc, &security, token).await?) });
    if let Some(path) = config.unix_socket.clone() {
        let (unix, token) = (api.clone(), stop.clone());
        servers.spawn(async move { Ok(unix.serve_unix(&path, token).await?) });
    }

    let opening = open(&config, &metrics, &publish);
    // Biased: servers may end because of the shutdown, and that must not pass for a failure.
    let opened = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        opened = opening => Some(opened),
        failed = first_failure(&mut servers) => return failed,
    };
    if opened.is_some() {
        api.set_serving(true).await;
        tracing::info!("ready");
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            failed = first_failure(&mut servers) => return failed,
        }
    }

    tracing::info!("stopping");
    api.set_serving(false).await;
    stop.cancel();
    if let Some((manager, store)) = opened {
        manager.shut_down().await;
        drain(&mut servers).await;
        drop((manager, publish));
        store.close().await;
    } else {
        drain(&mut servers).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Returns when a server ended before it was told to.
async fn first_failure(servers: &mut JoinSet<Result<(), RunError>>) -> Result<(), RunError> {
    match servers.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

async fn drain(servers: &mut JoinSet<Result<(), RunError>>) {
    let all = async { while servers.join_next().await.is_some() {} };
    if timeout(DRAIN, all).await.is_err() {
        tracing::info!("connections were cut that did not end by themselves");
        servers.shutdown().await;
    }
}

/// Opens the store and takes up its loads; tries again for as long as that fails, and says why meanwhile.
async fn open(config: &Serve, metrics: &Metrics, publish: &watch::Sender<Backend>) -> (Manager, Store) {
    let mut said = String::new();
    loop {
        match try_open(config, metrics).await {
            Ok((manager, store)) => {
                publish.send_replace(Backend::Ready(manager.clone()));
                return (manager, store);
            }
            Err(reason) => {
                if reason != said {
                    tracing::error!(reason, "loads cannot be served; trying again");
                    publish.send_replace(Backend::Unusable(reason.as_str().into()));
                    said = reason;
                }
            }
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

async fn try_open(config: &Serve, metrics: &Metrics) -> Result<(Manager, Store), String> {
    let directory = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    let store = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let alluxio = config.alluxio_config();
    let work = &alluxio.work_directory;
    fs::create_dir_all(work).map_err(|error| format!("cannot make {}: {error}", work.display()))?;
    let uid = store.uid();
    let processes = strays::end(Mark::of_all(uid)).await;
    if processes > 0 {
        tracing::warn!(processes, "commands of a sidecar that was killed still ran, and were killed");
    }
    let alluxio = Arc::new(Alluxio::new(alluxio, uid));
    let limits = config.limits.limits();
    let manager = Manager::start(store.clone(), alluxio, Clock::system(), limits, metrics.clone()).await;
    Ok((manager.map_err(|error| error.to_string())?, store))
}
