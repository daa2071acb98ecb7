//! Checks of LOADED loads: VerifyLoad, and `reverify_interval`.
//!
//! Owns which checks are under way and when the next are due. A check never changes a load by itself: what it found
//! is applied through [`Manager::change_loaded`], stored first and published second; a crash in between leaves LOADED.
//!
//! Invariants: at most [`AT_ONCE`] checks run; whoever asks for one gets an answer of a check that began after they
//! asked; those of the schedule run one at a time and rest nine times as long as they took.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture, future::Shared as Joint};
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    time::{Instant, sleep},
};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Manager, ManagerError,
    check::{self, Finding},
    parking::Shared,
    verify::VerifyError,
};
use crate::{
    gates::Shut,
    job::{Event, Job, LoadId, Reason, State},
    store::ListQuery,
};

/// Each is a listing of a whole path.
const AT_ONCE: usize = 2;
/// Checks of the schedule rest so many times as long as the last one took: a tenth of the time at most is theirs.
const REST: u32 = 9;
/// After a check that could not judge, unless the interval is shorter.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The clock that says what is due may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Finished loads read at once when the sidecar starts.
const PAGE: usize = 256;

/// The state of all checks.
#[derive(Debug)]
pub(super) struct Checks {
    /// The newest check of each load that has one.
    under_way: Shared<HashMap<LoadId, Check>>,
    permits: Semaphore,
    /// Held while a finished load is changed: several may want to.
    changing: Mutex<()>,
    /// LOADED loads that are checked again, and when.
    due: Shared<HashMap<LoadId, Timestamp>>,
    scheduled: Notify,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            under_way: Shared::default(),
            permits: Semaphore::new(AT_ONCE),
            changing: Mutex::default(),
            due: Shared::default(),
            scheduled: Notify::new(),
        }
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

    /// Takes note of when `job` is due, or that it is not to be checked any more.
    pub(super) fn schedule(&self, job: &Job) {
        match job.check_due() {
            Some(at) => self.put(job.id.clone(), at),
            None => self.forget(&job.id),
        }
    }

    fn put(&self, id: LoadId, at: Timestamp) {
        self.due.with(|due| due.insert(id, at));
        self.scheduled.notify_one();
    }

    pub(super) fn forget(&self, id: &LoadId) {
        self.due.with(|due| due.remove(id));
    }

    fn next(&self) -> Option<(LoadId, Timestamp)> {
        self.due.with(|due| due.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (id.clone(), *at)))
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
        inner.checks.schedule(&job);
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

/// Checks what is due, until the manager stops, whatever panics.
pub(super) async fn keep(manager: Manager) {
    while manager.0.tasks.spawn(run(manager.clone())).await.is_err() {
        tokio::select! {
            () = manager.stopping().cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

async fn run(manager: Manager) {
    let stopping = manager.stopping().clone();
    let work = async {
        recall(&manager).await;
        loop {
            let due = manager.0.checks.next();
            let left = due.as_ref().map(|(_, at)| left(*at, manager.now()));
            match (due, left) {
                (Some((id, _)), Some(Duration::ZERO)) => {
                    let begun = Instant::now();
                    check_due(&manager, &id).await;
                    sleep(begun.elapsed() * REST).await;
                }
                (_, left) => {
                    tokio::select! {
                        () = manager.0.checks.scheduled.notified() => {}
                        () = sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stopping.cancelled() => {}
        () = work => {}
    }
}

/// Zero when it is due.
fn left(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Finds the loads that are to be checked: once, and then each is noted when it becomes LOADED.
async fn recall(manager: &Manager) {
    let mut query = ListQuery { states: vec![State::Loaded], limit: PAGE, ..ListQuery::default() };
    loop {
        match manager.0.store.list(query.clone()).await {
            Ok(page) => {
                for (_, job) in &page {
                    if let Some(at) = job.check_due() {
                        // One that was checked meanwhile has a later time already.
                        manager.0.checks.due.with(|due| _ = due.entry(job.id.clone()).or_insert(at));
                    }
                }
                let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else { return };
                query.before = Some(*last);
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read; loads are not checked yet");
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

async fn check_due(manager: &Manager, id: &LoadId) {
    let checks = &manager.0.checks;
    match manager.verify(id).await {
        Ok(_) => {}
        Err(ManagerError::NotFound { .. } | ManagerError::NotLoaded { .. }) => checks.forget(id),
        Err(error) => {
            tracing::debug!(%id, %error, "a check is made again later");
            let interval = manager.get(id).await.ok().and_then(|job| job.spec.reverify_interval);
            let pause = interval.map_or(AGAIN_AFTER, |interval| interval.min(AGAIN_AFTER));
            match manager.now().checked_add(pause) {
                Ok(at) => checks.put(id.clone(), at),
                Err(_) => checks.forget(id),
            }
        }
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Shut {
    let causes = std::iter::successors(error.source(), |e| e.source());
    let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    Shut { reason: Reason::AlluxioUnreachable, message }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::job::{AlluxioPath, Spec};

    fn loaded(id: &str, interval: Option<u64>, verified: i64) -> Job {
        let path = AlluxioPath::try_from("/a".to_owned()).unwrap();
        let spec = Spec { reverify_interval: interval.map(Duration::from_secs), ..Spec::new(path) };
        let id = LoadId::try_from(id.to_owned()).unwrap();
        let verified = Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(verified));
        Job { state: State::Loaded, verified, ..Job::new(id, Uuid::nil(), spec, Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn what_was_seen_longest_ago_is_due_first_and_what_is_stale_never() {
        let checks = Checks::default();
        let next = || checks.next().map(|(id, at)| (id.to_string(), at.as_second()));
        checks.schedule(&loaded("never", None, 0));
        assert_eq!(next(), None);
        checks.schedule(&loaded("often", Some(10), 100));
        checks.schedule(&loaded("seldom", Some(100), 0));
        assert_eq!(next(), Some(("seldom".to_owned(), 100)));
        checks.schedule(&loaded("seldom", Some(100), 101));
        assert_eq!(next(), Some(("often".to_owned(), 110)));
        checks.schedule(&Job { state: State::Stale, ..loaded("often", Some(10), 100) });
        assert_eq!(next(), Some(("seldom".to_owned(), 201)));
        checks.schedule(&loaded("eternal", Some(u64::MAX / 2), 100));
        assert_eq!(next(), Some(("seldom".to_owned(), 201)));
    }

    #[test]
    fn a_check_is_due_from_its_time_on() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(left(at(10), at(7)), Duration::from_secs(3));
        assert_eq!((left(at(10), at(10)), left(at(10), at(12))), (Duration::ZERO, Duration::ZERO));
    }
}
