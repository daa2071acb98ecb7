//! Keeps servers up: binds, serves, and where the process has to stay up, tries again for ever.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::{self, Admin},
    human::chain,
    metrics::Metrics,
    readiness::{Part, Readiness},
    run::RunError,
    service::Backend,
};

/// Between two tries of a server. Whoever has the port may be about to end.
const RETRY: Duration = Duration::from_secs(2);

/// A port to listen on; bound early where that must not fail.
#[derive(Debug)]
pub(crate) struct Port {
    flag: &'static str,
    address: SocketAddr,
    bound: Mutex<Option<TcpListener>>,
}

impl Port {
    pub(crate) fn new(flag: &'static str, address: SocketAddr) -> Self {
        Self { flag, address, bound: Mutex::default() }
    }

    /// So that [`listen`](Self::listen) does not fail.
    pub(crate) async fn bind(&self) -> Result<(), RunError> {
        let listener = self.listen().await?;
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        Ok(())
    }

    pub(crate) async fn listen(&self) -> Result<TcpListener, RunError> {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
        match bound {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(self.address).await.map_err(|source| RunError::Listen {
                flag: self.flag,
                address: self.address,
                source,
            }),
        }
    }
}

/// How the end of a server is taken.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) stay_up: bool,
    pub(crate) readiness: Readiness,
}

impl Keeper {
    /// Runs what `serve` makes until `stop`. An end before that is an error, or is said and tried again.
    pub(crate) async fn keep<F>(
        self,
        part: Part,
        stop: CancellationToken,
        mut serve: impl FnMut() -> F,
    ) -> Result<(), RunError>
    where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        loop {
            // A task of its own: a panic is an end like any other.
            let error = match AbortOnDropHandle::new(tokio::spawn(serve())).await {
                Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
                Ok(Ok(())) => RunError::Ended(part),
                Ok(Err(error)) => error,
                Err(panic) => RunError::Panic(panic),
            };
            if !self.stay_up {
                return Err(error);
            }
            self.readiness.shut(part, format!("{}; trying again", chain(&error)));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// Serves the admin port and nothing else until `shutdown`: ready for nothing because of `reason`.
pub async fn explain(address: SocketAddr, reason: &str, metrics: Metrics, shutdown: CancellationToken) {
    tracing::error!(reason, "nothing is served; the process stays up until it is told to stop");
    let (_never_ready, backend) = watch::channel(Backend::Unusable(reason.into()));
    let readiness = Readiness::default();
    let keeper = Keeper { stay_up: true, readiness: readiness.clone() };
    let stopping = shutdown.clone();
    let port = std::sync::Arc::new(Port::new("--admin-listen", address));
    let admin = Admin { backend, readiness: readiness.clone(), metrics, stopping };
    let kept = keeper.keep(Part::AdminListener, shutdown, || {
        let (port, admin) = (std::sync::Arc::clone(&port), admin.clone());
        async move { serve_admin(&port, admin).await }
    });
    // It ends with the shutdown only.
    let _ = kept.await;
}

pub(crate) async fn serve_admin(port: &Port, admin: Admin) -> Result<(), RunError> {
    let listener = port.listen().await?;
    admin.readiness.clear(Part::AdminListener);
    admin::serve(listener, admin).await.map_err(RunError::Admin)
}
