//! Puts the parts together, and takes them apart in order.
//!
//! Start: listeners first, then the store; until it is open every call says why not. Stop: not ready, no
//! new connections, watches end, children end, store closed. Told to stay up, nothing but the shutdown ends
//! it: what cannot be had is tried again, because a container that is down takes the master's pod with it.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::Admin,
    alluxio::Alluxio,
    clock::Clock,
    config::Serve,
    credentials::{CredentialsError, Follower, Sources},
    engine::{
        memory::{self, Heap},
        strays::{self, Mark},
    },
    keeper::{Keeper, Port, serve_admin},
    manager::Manager,
    metrics::Metrics,
    readiness::{Part, Readiness},
    server::{self, Api, ServerError},
    service::{Backend, Service},
    store::Store,
};

/// Between two tries to open the store.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// For connections to end by themselves; clients resume their watches elsewhere.
const DRAIN: Duration = Duration::from_secs(5);

/// The process cannot serve. The operator acts on the message and its causes.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("cannot listen on {flag} {address}")]
    Listen { flag: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("the TLS certificate or key is not usable")]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("admin server failed")]
    Admin(#[source] std::io::Error),
    #[error("a server task panicked")]
    Panic(#[from] tokio::task::JoinError),
    #[error("the {0} ended before it was told to")]
    Ended(Part),
}

/// Serves until `shutdown` is cancelled.
pub async fn run(
    config: Serve,
    clock: Clock,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let readiness = Readiness::default();
    let sources = Sources::new(&config.security);
    let follower = Follower::new(sources, readiness.clone(), metrics.clone()).await;
    let access = follower.access();
    let grpc = Arc::new(Port::new("--listen", config.listen));
    let http = Arc::new(Port::new("--admin-listen", config.admin_listen));
    if !config.stay_up {
        // A directory may be filled later. Files that are named one by one have to be there.
        if config.security.tls_cert.is_some()
            && let Some(trouble) = follower.trouble()
        {
            return Err(trouble.into());
        }
        grpc.bind().await?;
        http.bind().await?;
    }
    let (publish, backend) = watch::channel(Backend::Opening);
    let api = Api::new(Service::new(backend.clone(), metrics.clone()), metrics.clone());
    api.set_serving(false).await;
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, state_dir = %config.state_dir.display(), "serving");

    let stop = CancellationToken::new();
    let _ends_with_us = AbortOnDropHandle::new(tokio::spawn(follower.run(stop.clone())));
    let keeper = Keeper { stay_up: config.stay_up, readiness: readiness.clone() };
    let mut servers: JoinSet<Result<(), RunError>> = JoinSet::new();
    let admin =
        Admin { backend, readiness: readiness.clone(), metrics: metrics.clone(), stopping: shutdown.clone() };
    servers.spawn(keeper.clone().keep(Part::AdminListener, shutdown.clone(), move || {
        let (port, admin) = (Arc::clone(&http), admin.clone());
        async move { serve_admin(&port, admin).await }
    }));
    let (tcp, token, up) = (api.clone(), stop.clone(), readiness.clone());
    servers.spawn(keeper.clone().keep(Part::Listener, stop.clone(), move || {
        let (port, tcp, access) = (Arc::clone(&grpc), tcp.clone(), access.clone());
        let (token, up) = (token.clone(), up.clone());
        async move {
            let listener = port.listen().await?;
            up.clear(Part::Listener);
            Ok(tcp.serve_tcp(listener, access, token).await?)
        }
    }));
    if let Some(path) = config.unix_socket.clone() {
        let (unix, token, up) = (api.clone(), stop.clone(), readiness);
        servers.spawn(keeper.keep(Part::UnixSocket, stop.clone(), move || {
            let (path, unix, token, up) = (path.clone(), unix.clone(), token.clone(), up.clone());
            async move {
                let listener = server::bind_unix(&path)?;
                up.clear(Part::UnixSocket);
                Ok(unix.serve_unix(listener, &path, token).await?)
            }
        }));
    }

    let opening = open(&config, &clock, &metrics, &publish);
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
async fn open(
    config: &Serve,
    clock: &Clock,
    metrics: &Metrics,
    publish: &watch::Sender<Backend>,
) -> (Manager, Store) {
    let mut said = String::new();
    loop {
        match try_open(config, clock, metrics).await {
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

/// Of each command, and a line when that is less than usual.
fn heap(running: usize) -> Heap {
    let heap = Heap::under(memory::limit(), running);
    if let Some(limit) = heap.reduced_by {
        let (heap_mib, limit_mib) = (heap.mebibytes, limit);
        if heap.is_scarce() {
            tracing::warn!(
                heap_mib,
                limit_mib,
                running,
                "the memory limit is too small for the JVM of a load; raise it"
            );
        } else {
            tracing::info!(
                heap_mib,
                limit_mib,
                running,
                "the heap of a load's JVM is reduced to fit the memory limit"
            );
        }
    }
    heap
}

async fn try_open(config: &Serve, clock: &Clock, metrics: &Metrics) -> Result<(Manager, Store), String> {
    let directory = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    let store = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let alluxio = config.alluxio_config(heap(config.limits.max_running));
    let work = &alluxio.work_directory;
    fs::create_dir_all(work).map_err(|error| format!("cannot make {}: {error}", work.display()))?;
    let uid = store.uid();
    let processes = strays::end(Mark::of_all(uid)).await;
    if processes > 0 {
        tracing::warn!(processes, "commands of a sidecar that was killed still ran, and were killed");
    }
    let alluxio = Arc::new(Alluxio::new(alluxio, uid));
    let limits = config.limits.limits();
    let manager = Manager::start(store.clone(), alluxio, clock.clone(), limits, metrics.clone()).await;
    Ok((manager.map_err(|error| error.to_string())?, store))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::human::chain;

    #[test]
    fn a_cause_is_told_once() {
        let source = std::io::ErrorKind::AddrInUse.into();
        let error = RunError::Listen { flag: "--listen", address: ([127, 0, 0, 1], 1).into(), source };
        assert_eq!(chain(&error), "cannot listen on --listen 127.0.0.1:1: address in use");
        let source = std::io::ErrorKind::NotFound.into();
        let error = RunError::from(ServerError::Socket { path: "/gone/socket".into(), source });
        assert_eq!(chain(&error), "cannot listen on --unix-socket /gone/socket: entity not found");
    }
}
