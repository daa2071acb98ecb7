//! Reads the files again and again, and publishes what is usable.
//!
//! Read rather than watched: file systems that Secrets and host paths come on do not all tell of changes, and
//! reading four small files takes less than a tenth of a millisecond.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Access, CredentialsError, Keys, Known,
    files::{Contents, Sources},
};
use crate::{
    metrics::Metrics,
    readiness::{Part, Readiness},
};

/// How soon a change is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The one who reads.
#[derive(Debug)]
pub struct Follower {
    sources: Sources,
    seen: Option<Result<Contents, CredentialsError>>,
    known: watch::Sender<Known>,
    readiness: Readiness,
    metrics: Metrics,
}

impl Follower {
    /// Has looked once when it returns.
    pub async fn new(sources: Sources, readiness: Readiness, metrics: Metrics) -> Self {
        let mut follower =
            Self { sources, seen: None, known: watch::Sender::new(Known::default()), readiness, metrics };
        follower.look().await;
        follower
    }

    #[must_use]
    pub fn access(&self) -> Access {
        Access { known: self.known.subscribe(), has_tls: self.sources.has_tls() }
    }

    /// Why nobody is let in.
    #[must_use]
    pub fn trouble(&self) -> Option<CredentialsError> {
        self.known.borrow().trouble.clone()
    }

    /// Looks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.sources.is_open() {
            return;
        }
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let sources = self.sources.clone();
        let read = tokio::task::spawn_blocking(move || sources.read()).await;
        // A panic, which is logged; the next look may do better.
        let Ok(read) = read else { return };
        if self.seen.as_ref() == Some(&read) {
            return;
        }
        let made = read.as_ref().map_err(Clone::clone).and_then(Keys::new);
        self.seen = Some(read);
        match made {
            Ok(keys) => {
                if !self.sources.is_open() {
                    tracing::info!(?keys, "credentials are in use");
                }
                self.known.send_replace(Known { keys: Some(Arc::new(keys)), trouble: None });
                self.metrics.credentials_usable(true);
                self.readiness.clear(Part::Credentials);
            }
            Err(error) => {
                let known = self.known.borrow().keys.is_some();
                if known {
                    let warning = format!("{error}; the credentials read before stay in use");
                    self.readiness.warn(Part::Credentials, warning);
                } else {
                    self.readiness.shut(Part::Credentials, error.to_string());
                }
                self.metrics.credentials_usable(false);
                self.known.send_modify(|known| known.trouble = Some(error));
            }
        }
    }
}
