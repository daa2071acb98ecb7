//! Checks of LOADED loads, as VerifyLoad and the [`schedule`](super::schedule) ask for them.
//!
//! Owns which checks are under way. A check never changes a load by itself: what it found
//! is applied through [`Manager::change_loaded`], stored first and published second; a crash in between leaves LOADED.
//!
//! Invariants: at most [`AT_ONCE`] checks run; whoever asks for one gets an answer of a check that began after they
//! asked.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{FutureExt as _, future::BoxFuture, future::Shared as Joint};
use tokio::sync::{Mutex, Semaphore};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Manager, ManagerError,
    check::{self, Finding},
    parking::Shared,
    verify::VerifyError,
};
use crate::{
    gates::{Shut, unreachable},
    job::{Event, Job, LoadId, Reason, State},
};

/// Each is a listing of a whole path.
const AT_ONCE: usize = 2;

/// The state of all checks.
#[derive(Debug)]
pub(super) struct Checks {
    /// The newest check of each load that has one.
    under_way: Shared<HashMap<LoadId, Check>>,
    permits: Semaphore,
    /// Held while a finished load is changed: several may want to.
    changing: Mutex<()>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { under_way: Shared::default(), permits: Semaphore::new(AT_ONCE), changing: Mutex::default() }
    }
}

#[derive(Debug, Clone)]
struct Check {
    uid: Uuid,
    /// It may have looked at files already.
    begun: Arc<AtomicBool>,
    outcome: Joint<BoxFuture<'static, Result<Arc<Job>, ManagerError>>>,
}

impl Checks {
    /// A check is adding to the failures of this load, or may be about to.
    pub(super) fn is_checked(&self, uid: Uuid) -> bool {
        self.under_way.with(|all| all.values().any(|check| check.uid == uid))
    }
}

impl Manager {
    /// Checks a LOADED load again, and returns it as it is then.
    pub async fn verify(&self, id: &LoadId) -> Result<Arc<Job>, ManagerError> {
        if self.stopping().is_cancelled() {
            return Err(ManagerError::Stopping);
        }
        let job = self.get(id).await?;
        if job.state != State::Loaded {
            return Err(ManagerError::NotLoaded { id: id.clone(), state: job.state });
        }
        let outcome = self.0.checks.under_way.with(|all| {
            let before = all.get(id).cloned();
            if let Some(check) = &before
                && !check.begun.load(Ordering::Relaxed)
                && check.outcome.peek().is_none()
            {
                return check.outcome.clone();
            }
            let begun = Arc::new(AtomicBool::new(false));
            let outcome = self.begin_check(&job, Arc::clone(&begun), before);
            all.insert(id.clone(), Check { uid: job.uid, begun, outcome: outcome.clone() });
            outcome
        });
        outcome.await
    }

    /// In a task of its own: a caller that hangs up does not end what others wait for.
    fn begin_check(
        &self,
        job: &Job,
        begun: Arc<AtomicBool>,
        before: Option<Check>,
    ) -> Joint<BoxFuture<'static, Result<Arc<Job>, ManagerError>>> {
        let (manager, id, uid) = (self.clone(), job.id.clone(), job.uid);
        let span = tracing::error_span!("check", id = %job.id, path = %job.spec.path);
        let work = async move {
            let checks = &manager.0.checks;
            let turn = async {
                if let Some(before) = before {
                    let _told_to_others = before.outcome.await;
                }
                let _permit = checks.permits.acquire().await;
                // Under the lock: whoever joined did so before.
                checks.under_way.with(|_| begun.store(true, Ordering::Relaxed));
                manager.check(&id, uid).await
            };
            let outcome = tokio::select! {
                () = manager.stopping().cancelled() => Err(ManagerError::Stopping),
                outcome = turn => outcome,
            };
            checks.under_way.with(|all| {
                if all.get(&id).is_some_and(|newest| Arc::ptr_eq(&newest.begun, &begun)) {
                    all.remove(&id);
                }
            });
            outcome
        };
        let task = self.0.tasks.spawn(work.instrument(span));
        task.map(|ended| ended.unwrap_or(Err(ManagerError::Panicked))).boxed().shared()
    }

    async fn check(&self, id: &LoadId, uid: Uuid) -> Result<Arc<Job>, ManagerError> {
        let inner = &self.0;
        let job = self.finished(id).await?;
        if job.uid != uid || job.state != State::Loaded {
            return Err(ManagerError::NotLoaded { id: id.clone(), state: job.state });
        }
        // Of checks that were cut short there may be failures under numbers above the job's.
        let generation = job.sequence.max(inner.store.newest_generation(uid).await? + 1);
        let looked = match inner.alluxio.client().await {
            Ok(client) => check::look(client, &inner.store, &job, generation, || self.now()).await,
            Err(error) => Ok(Finding::Unjudged(unreachable(&error))),
        };
        let finding = match looked {
            Ok(finding) => finding,
            Err(VerifyError::Store(error)) => {
                inner.metrics.verification("not_judged");
                return Err(error.into());
            }
            Err(VerifyError::Alluxio(error)) => Finding::Unjudged(unreachable(&error)),
        };
        let event = match finding {
            Finding::InPlace(found) => Event::SeenAgain { count: found.count(true) },
            Finding::Gone(found, failures) => Event::FoundGone {
                message: check::describe(job.progress.count(), &found),
                count: check::count_of(&found),
                failures,
            },
            Finding::Lost(Shut { reason, message }) => Event::Withdrawn { reason, message },
            Finding::Unjudged(shut) => {
                inner.metrics.verification("not_judged");
                tracing::info!(why = shut.message, "a load could not be checked; it stays LOADED");
                return Err(ManagerError::NotJudged { id: id.clone(), shut });
            }
        };
        let job = self.change_loaded(id, uid, event).await?;
        inner.metrics.verification(match job.reason {
            _ if job.state == State::Loaded => "loaded",
            Some(Reason::ClusterChanged) => "cluster_changed",
            Some(Reason::PathNotFound) => "path_not_found",
            _ => "evicted",
        });
        Ok(job)
    }

    /// Changes a finished load, durably, then tells those that follow it.
    pub(super) async fn change_loaded(
        &self,
        id: &LoadId,
        uid: Uuid,
        event: Event,
    ) -> Result<Arc<Job>, ManagerError> {
        let inner = &self.0;
        let _one_at_a_time = inner.checks.changing.lock().await;
        let mut job =
            inner.store.get(id).await?.filter(|job| job.uid == uid).ok_or_else(|| self.not_found(id))?;
        let from = job.state;
        job.apply(event, self.now()).map_err(|_| ManagerError::NotLoaded { id: id.clone(), state: from })?;
        inner.store.update(job.clone()).await?;
        let job = Arc::new(job);
        inner.schedule.note(&job);
        let over = job.state != from;
        if over {
            inner.metrics.transition(&job);
            tracing::warn!(%id, why = job.message, "load is stale");
        }
        inner.followed.with(|followed| {
            let follower = if over { followed.remove(id) } else { None };
            if let Some(sender) = follower.as_ref().or_else(|| followed.get(id)) {
                sender.send_replace(Arc::clone(&job));
            }
        });
        Ok(job)
    }
}
