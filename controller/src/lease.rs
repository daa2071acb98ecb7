//! Which replica works: the one that holds the Lease.
//!
//! Invariants: leadership is believed until two thirds of the lease's duration after the last renewal, reckoned
//! on our own monotonic clock from before the request; others take over only after the whole duration without
//! a renewal, reckoned on theirs. So two never lead at once, whatever the clocks on the wall say, and a replica
//! that was suspended does not write when it goes on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Which Lease, and who we are.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    pub name: String,
    pub namespace: String,
    /// Unique among the replicas.
    pub identity: String,
    pub duration: Duration,
}

impl LeaseConfig {
    /// How long a renewal is believed.
    fn validity(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Between two renewals, or two looks at somebody else's lease.
    fn pause(&self) -> Duration {
        self.duration / 7
    }
}

/// Whether this replica leads, at any moment. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes part in the election.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    config: LeaseConfig,
    leadership: Leadership,
    /// Somebody else's lease, and when we saw this state of it first.
    observed: Option<(Option<String>, Instant)>,
}

impl Elector {
    #[must_use]
    pub fn new(client: &Client, config: LeaseConfig, leadership: Leadership) -> Self {
        let api = Api::namespaced(client.clone(), &config.namespace);
        Self { api, config, leadership, observed: None }
    }

    /// Waits for the lease, then runs `lead` until the lease is lost; again and again until `stop`. `lead` has
    /// to end when its token is cancelled. The lease is given up at the end, so that another takes over at once.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        stop: CancellationToken,
        standby: impl Fn(Option<&str>),
        mut lead: impl FnMut(CancellationToken) -> F,
    ) {
        while let Some(()) = stop.run_until_cancelled(self.acquire(&standby)).await {
            tracing::info!(lease = self.config.name, identity = self.config.identity, "leading");
            let term = stop.child_token();
            let leading = lead(term.clone());
            tokio::pin!(leading);
            tokio::select! {
                () = &mut leading => {}
                () = self.renew() => {
                    tracing::warn!(lease = self.config.name, "the lease could not be renewed: handing over");
                    self.leadership.set(None);
                    term.cancel();
                    leading.await;
                }
            }
            if stop.is_cancelled() {
                break;
            }
        }
        self.release().await;
    }

    async fn acquire(&mut self, standby: &impl Fn(Option<&str>)) {
        loop {
            match self.try_take().await {
                Ok(None) => return,
                Ok(Some(holder)) => standby(Some(&holder)),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        lease = self.config.name,
                        "the lease cannot be looked at; trying again"
                    );
                    standby(None);
                }
            }
            sleep(self.config.pause()).await;
        }
    }

    /// Returns when leadership is over.
    async fn renew(&mut self) {
        loop {
            sleep(self.config.pause()).await;
            let limit = self.leadership.until().unwrap_or_else(Instant::now);
            match tokio::time::timeout_at(limit.into(), self.try_take()).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(holder))) => {
                    tracing::warn!(holder, "another replica has the lease");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease was not renewed; trying again"
                ),
                Err(_) => return,
            }
            if !self.leadership.is_held() {
                return;
            }
        }
    }

    /// Takes or renews the lease; otherwise says who has it.
    async fn try_take(&mut self) -> Result<Option<String>, kube::Error> {
        let asked = Instant::now();
        let Some(lease) = self.api.get_opt(&self.config.name).await? else {
            let metadata = ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(None)) };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.judge(created, asked);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if let Some(holder) = holder.filter(|holder| *holder != self.config.identity) {
            let version = lease.metadata.resource_version.clone();
            let since = match &self.observed {
                Some((seen, since)) if *seen == version => *since,
                _ => {
                    self.observed = Some((version, asked));
                    asked
                }
            };
            let duration =
                Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).try_into().unwrap_or(0));
            if since.elapsed() <= duration {
                return Ok(Some(holder));
            }
        }
        // The resource version in it makes the API server refuse if somebody was faster.
        let lease = Lease { spec: Some(self.claim(Some(&spec))), ..lease };
        let replaced = self.api.replace(&self.config.name, &PostParams::default(), &lease).await;
        self.judge(replaced, asked)
    }

    fn judge(
        &self,
        written: Result<Lease, kube::Error>,
        asked: Instant,
    ) -> Result<Option<String>, kube::Error> {
        match written {
            Ok(_) => {
                self.leadership.set(Some(asked + self.config.validity()));
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some("another replica".to_owned())),
            Err(error) => Err(error),
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.config.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            // Whole seconds, rounded up: others must not be faster than we believe.
            lease_duration_seconds: i32::try_from(self.config.duration.as_millis().div_ceil(1000)).ok(),
            acquire_time: mine.and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine.is_some() || before.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease up, if it is ours. Without an answer it simply runs out.
    async fn release(&self) {
        let held = self.leadership.is_held();
        self.leadership.set(None);
        if !held {
            return;
        }
        let give_up = async {
            let Some(mut lease) = self.api.get_opt(&self.config.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.config.identity) {
                spec.holder_identity = None;
                self.api.replace(&self.config.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.config.pause(), give_up).await {
            Ok(Ok(())) => tracing::info!(lease = self.config.name, "the lease was given up"),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease could not be given up; it runs out"
            ),
            Err(_) => tracing::warn!("no answer when giving up the lease; it runs out"),
        }
    }
}
