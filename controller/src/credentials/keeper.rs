//! Keeps the root in its Secret, and writes what is derived from it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    identity::{Identity, Owner},
    root::{Root, RootError},
    secret,
};
use crate::{metrics::Metrics, writer::MANAGER};

/// Name of the Secret that holds the root; the Role of `deploy/base` and its policy name it, too.
const ROOT_SECRET: &str = "preload-controller-root";
const ROOT_TYPE: &str = "preload.dev/root";
/// Between two looks at the root, which another replica may have renewed or an operator deleted.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a look that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// A Secret is not repaired more often: the kubelet needs up to two minutes to bring it into a pod.
const REPAIR_EVERY: Duration = Duration::from_secs(300);
/// One that was not asked for again in this time is forgotten.
const REPAIR_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// Annotation of the root: by which authorities all Secrets have been written.
const ANNOUNCED: &str = "preload.dev/announced";

/// Where the root lies, and how long a period is.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    pub namespace: String,
    pub period: Duration,
}

/// Credentials cannot be made or written. Whoever runs the controller acts.
#[derive(Debug, Error)]
pub enum KeeperError {
    #[error("the Secret {namespace}/{ROOT_SECRET} is unusable; delete it, and all credentials are made anew")]
    Root { namespace: String, source: RootError },
    #[error(transparent)]
    Make(#[from] RootError),
    #[error("the root of all credentials has not been read yet")]
    NoRoot,
    #[error("the API server does not answer")]
    Silent,
    #[error("the API server refuses: {0}")]
    Api(#[source] Box<kube::Error>),
}

impl From<kube::Error> for KeeperError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// See the module. Shared by everything that speaks TLS.
pub struct Keeper {
    client: Client,
    config: KeeperConfig,
    metrics: Metrics,
    root: watch::Sender<Option<Arc<Root>>>,
    /// Every Secret there was when the root was new has been written by it.
    announced: AtomicBool,
    repaired: Mutex<HashMap<Identity, Repair>>,
}

/// Of one StatefulSet's Secret.
#[derive(Debug)]
struct Repair {
    at: Instant,
    /// Until the next one; longer each time, since a sidecar may be out of reach for another reason.
    pause: Duration,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Keeper {
    #[must_use]
    pub fn new(client: Client, config: KeeperConfig, metrics: Metrics) -> Self {
        Self {
            client,
            config,
            metrics,
            root: watch::Sender::new(None),
            announced: AtomicBool::default(),
            repaired: Mutex::default(),
        }
    }

    /// Reads the root, makes it where there is none, and renews it in time; until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut failing = false;
        while !stop.is_cancelled() {
            let pause = match self.look().await {
                Ok(()) => {
                    failing = false;
                    LOOK_EVERY
                }
                Err(error) => {
                    if !failing {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "no credentials for sidecars and webhook; trying again");
                    }
                    failing = true;
                    RETRY
                }
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    async fn look(&self) -> Result<(), KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.config.namespace);
        let now = Timestamp::now();
        let Some(found) = within(secrets.get_opt(ROOT_SECRET)).await? else {
            let root = Root::generate(now)?;
            match within(secrets.create(&parameters(), &self.stored(&root, None))).await {
                // Another replica was quicker: its root is read at once.
                Err(KeeperError::Api(error)) if is_code(&error, 409) => {}
                written => {
                    written?;
                    tracing::info!(secret = ROOT_SECRET, "made a new authority for sidecars and webhook");
                }
            }
            return Box::pin(self.look()).await;
        };
        let announced =
            found.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOUNCED));
        let announced = announced.cloned();
        let data = found.data.unwrap_or_default();
        let root = Root::from_data(&data)
            .map_err(|source| KeeperError::Root { namespace: self.config.namespace.clone(), source })?;
        if root.is_due(now) {
            let renewed = self.stored(&root.renewed(now)?, found.metadata.resource_version);
            match within(secrets.replace(ROOT_SECRET, &parameters(), &renewed)).await {
                Err(KeeperError::Api(error)) if is_code(&error, 409) => {}
                written => {
                    written?;
                    tracing::info!(secret = ROOT_SECRET, "renewed the authority; the old one stays trusted");
                }
            }
            return Box::pin(self.look()).await;
        }
        self.announced.store(announced.as_deref() == Some(&mark(&root)), Ordering::Release);
        self.root.send_if_modified(|known| {
            let news = known.as_ref().is_none_or(|known| known.data() != data);
            if news {
                *known = Some(Arc::new(root));
            }
            news
        });
        Ok(())
    }

    /// Whether all Secrets are of the present root. A new leader need not write them again then.
    #[must_use]
    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// Remembers that every Secret has been written by `root`, also for the next leader.
    pub(super) async fn announce(&self, root: &Root) -> Result<(), KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.config.namespace);
        let mut stored = within(secrets.get(ROOT_SECRET)).await?;
        if stored.data.as_ref() != Some(&root.data()) {
            // It has changed meanwhile: the next look brings the new one.
            return Ok(());
        }
        stored.metadata.annotations.get_or_insert_default().insert(ANNOUNCED.to_owned(), mark(root));
        within(secrets.replace(ROOT_SECRET, &parameters(), &stored)).await?;
        self.announced.store(true, Ordering::Release);
        Ok(())
    }

    fn stored(&self, root: &Root, resource_version: Option<String>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(ROOT_SECRET.to_owned()),
                namespace: Some(self.config.namespace.clone()),
                resource_version,
                ..ObjectMeta::default()
            },
            type_: Some(ROOT_TYPE.to_owned()),
            data: Some(root.data()),
            ..Secret::default()
        }
    }

    /// None until it was read for the first time.
    #[must_use]
    pub fn root(&self) -> watch::Receiver<Option<Arc<Root>>> {
        self.root.subscribe()
    }

    #[must_use]
    pub(super) fn period(&self) -> Duration {
        self.config.period
    }

    /// Which token is shown now: changes once in a period.
    #[must_use]
    pub fn current_period(&self) -> i64 {
        secret::period(Timestamp::now(), self.config.period)
    }

    /// Writes the Secret of a StatefulSet, whether or not there is one. One that an operator has made, of another
    /// type, is left alone.
    pub async fn write(&self, owner: &Owner) -> Result<(), KeeperError> {
        let written = self.try_write(owner).await;
        let (namespace, name) = (&owner.identity.namespace, owner.identity.secret_name());
        match &written {
            Ok(true) => tracing::info!(namespace, secret = name, "wrote credentials"),
            Ok(false) => tracing::debug!(namespace, secret = name, "somebody else's; left alone"),
            Err(error) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(namespace, secret = name, error, "credentials could not be written");
            }
        }
        self.metrics.write("Secret", if matches!(written, Ok(true)) { "applied" } else { "failed" });
        written.map(drop)
    }

    /// False: it is not ours.
    async fn try_write(&self, owner: &Owner) -> Result<bool, KeeperError> {
        let root = self.root.borrow().clone().ok_or(KeeperError::NoRoot)?;
        let secret = secret::secret(&root, owner, self.config.period, Timestamp::now())?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &owner.identity.namespace);
        // Never read: the role of the controller does not allow it. A name that is taken is a refusal.
        match within(secrets.create(&parameters(), &secret)).await {
            Err(KeeperError::Api(error)) if is_code(&error, 409) => {}
            created => return created.map(|_| true),
        }
        match within(secrets.replace(&owner.identity.secret_name(), &parameters(), &secret)).await {
            // A type cannot be changed, and the policy of `deploy/base` forbids to try.
            Err(KeeperError::Api(error)) if is_code(&error, 422) => Ok(false),
            replaced => replaced.map(|_| true),
        }
    }

    /// For a sidecar that does not let us in: writes its Secret, unless that was done a moment ago.
    pub async fn repair(&self, owner: &Owner) {
        {
            let mut repaired = self.repaired.lock().unwrap_or_else(PoisonError::into_inner);
            repaired.retain(|_, repair| repair.at.elapsed() < REPAIR_AT_MOST);
            let pause = match repaired.get(&owner.identity) {
                Some(repair) if repair.at.elapsed() < repair.pause => return,
                Some(repair) => (repair.pause * 2).min(REPAIR_AT_MOST / 2),
                None => REPAIR_EVERY,
            };
            repaired.insert(owner.identity.clone(), Repair { at: Instant::now(), pause });
        }
        // An error was logged.
        let _ = self.write(owner).await;
    }
}

fn mark(root: &Root) -> String {
    format!("{:016x}", root.fingerprint())
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KeeperError> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(KeeperError::Silent),
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
