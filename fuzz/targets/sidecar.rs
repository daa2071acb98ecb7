//! A sidecar from store to service, beside an Alluxio that does not answer.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use preload_sidecar::{
    alluxio::{Alluxio, AlluxioConfig},
    clock::Clock,
    engine::memory::Heap,
    manager::{Limits, Manager},
    metrics::Metrics,
    service::{Backend, Service},
    store::{Store, StoreError},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch, time::timeout};

/// Few loads, so that the limits are met.
pub const LIMITS: Limits = Limits {
    running: 2,
    queued: 3,
    retention: Duration::from_secs(3600),
    retained: 8,
    stall_after: Duration::from_secs(900),
};
/// For a stop: nothing runs that would have to be waited for.
const STOPS_WITHIN: Duration = Duration::from_secs(20);

pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

pub struct Sidecar {
    pub service: Service,
    manager: Manager,
    store: Store,
}

impl Sidecar {
    /// `store`: of the directory `dir`.
    pub async fn start(store: Store, dir: &Path) -> Result<Self, StoreError> {
        let config = AlluxioConfig {
            script: Some("/nonexistent".into()),
            // Nobody listens there.
            masters: vec!["127.0.0.1:1".to_owned()],
            job_masters: vec!["127.0.0.1:1".to_owned()],
            user: Some("nobody".to_owned()),
            work_directory: dir.to_owned(),
            heap: Heap::under(None, LIMITS.running),
        };
        let alluxio = Arc::new(Alluxio::new(config, store.uid()));
        let metrics = Metrics::new();
        let manager =
            Manager::start(store.clone(), alluxio, Clock::system(), LIMITS, metrics.clone()).await?;
        let (_, backend) = watch::channel(Backend::Ready(manager.clone()));
        Ok(Self { service: Service::new(backend, metrics), manager, store })
    }

    pub async fn stop(self) {
        timeout(STOPS_WITHIN, self.manager.shut_down()).await.expect("it stops");
        self.store.close().await;
    }
}

/// In memory: nothing of it has to last.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("preload-fuzz-").tempdir_in("/dev/shm").expect("room in /dev/shm")
}
