//! The Alluxio cluster beside us: its launcher and its servers, resolved when first needed.
//!
//! Nothing is contacted at start: the sidecar may come up before its master does.

use std::{path::PathBuf, time::Duration};

use alluxio_client::{Client, Config};
use thiserror::Error;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::engine::{
    launcher::{self, Launcher, LauncherError},
    memory::Heap,
};

/// What the operator said; everything else comes from Alluxio's own configuration.
#[derive(Debug, Clone, Default)]
pub struct AlluxioConfig {
    /// Launcher script; `None`: found in ALLUXIO_HOME, PATH or /opt/alluxio.
    pub script: Option<PathBuf>,
    /// `host:port`; empty: from `alluxio getConf`.
    pub masters: Vec<String>,
    /// `host:port`; empty: from `alluxio getConf`, or port 20001 of the masters when those are given.
    pub job_masters: Vec<String>,
    /// User for Alluxio; `None`: from its configuration, else the user of this process.
    pub user: Option<String>,
    /// Where commands may leave files.
    pub work_directory: PathBuf,
    /// Of each command.
    pub heap: Heap,
}

/// Alluxio's default port of a job master.
const JOB_MASTER_PORT: u16 = 20001;

/// Deadline of a unary call. Masters answer in milliseconds; one in a long garbage collection in seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Alluxio {
    config: AlluxioConfig,
    store: Uuid,
    launcher: OnceCell<Launcher>,
    client: OnceCell<Client>,
}

/// Alluxio cannot be addressed. The operator corrects the launcher or the flags.
#[derive(Debug, Error)]
pub enum AlluxioError {
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error("the user of this process has no name; give --alluxio-user")]
    NoUser,
}

impl Alluxio {
    /// `store`: for which commands run.
    #[must_use]
    pub fn new(config: AlluxioConfig, store: Uuid) -> Self {
        Self { config, store, launcher: OnceCell::new(), client: OnceCell::new() }
    }

    /// The script; looked for again until it is found.
    pub async fn launcher(&self) -> Result<&Launcher, LauncherError> {
        self.launcher
            .get_or_try_init(|| async {
                let script = launcher::find(self.config.script.as_deref())?;
                // The link of /proc also names a binary that was replaced on disk.
                let supervisor = PathBuf::from("/proc/self/exe");
                let (work, heap) = (self.config.work_directory.clone(), self.config.heap);
                Ok(Launcher::new(script, supervisor, work, heap, self.store))
            })
            .await
    }

    /// Connects lazily: success says nothing about the servers.
    pub async fn client(&self) -> Result<&Client, AlluxioError> {
        self.client.get_or_try_init(|| async { Ok(Client::new(self.addresses().await?)) }).await
    }

    /// Waits until the master loads no metadata for us any more: see [`Client::settled`].
    pub async fn settled(&self) {
        if let Some(client) = self.client.get() {
            client.settled().await;
        }
    }

    async fn addresses(&self) -> Result<Config, AlluxioError> {
        let given = &self.config;
        let (masters, job_masters, user) = if given.masters.is_empty() {
            let found = self.launcher().await?.endpoints().await?;
            let job_masters =
                if given.job_masters.is_empty() { found.job_masters } else { given.job_masters.clone() };
            (found.masters, job_masters, found.user)
        } else if given.job_masters.is_empty() {
            let host =
                |address: &String| address.rsplit_once(':').map_or(address.clone(), |(h, _)| h.to_owned());
            let beside = given.masters.iter().map(|m| format!("{}:{JOB_MASTER_PORT}", host(m))).collect();
            (given.masters.clone(), beside, None)
        } else {
            (given.masters.clone(), given.job_masters.clone(), None)
        };
        let user = given.user.clone().or(user).or_else(process_user).ok_or(AlluxioError::NoUser)?;
        tracing::info!(?masters, ?job_masters, user, "alluxio resolved");
        Ok(Config { masters, job_masters, user, call_timeout: CALL_TIMEOUT, ..Config::default() })
    }
}

/// As the JVM's user.name: from the password database, else from the environment.
fn process_user() -> Option<String> {
    let known = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    known.or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty())
}
