//! `reverify_interval`: when which LOADED load is checked again.
//!
//! Known in memory: read once from the store, then noted as loads become LOADED or are seen again.
//!
//! Invariant: checks of the schedule run one at a time, and rest [`REST`] times as long as they took.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Manager, ManagerError, parking::Shared};
use crate::{
    job::{Job, LoadId, State},
    store::ListQuery,
};

/// A tenth of the time at most is for checks.
const REST: u32 = 9;
/// After a check that could not judge, unless the interval is shorter.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The clock that says what is due may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Finished loads read at once when the sidecar starts.
const PAGE: usize = 256;

/// LOADED loads that are checked again, and when.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: Shared<HashMap<LoadId, Timestamp>>,
    changed: Notify,
}

impl Schedule {
    /// Takes note of when `job` is due, or that it is not to be checked any more.
    pub(super) fn note(&self, job: &Job) {
        match job.check_due() {
            Some(at) => self.put(job.id.clone(), at),
            None => self.forget(&job.id),
        }
    }

    fn put(&self, id: LoadId, at: Timestamp) {
        self.due.with(|due| due.insert(id, at));
        self.changed.notify_one();
    }

    pub(super) fn forget(&self, id: &LoadId) {
        self.due.with(|due| due.remove(id));
    }

    fn next(&self) -> Option<(LoadId, Timestamp)> {
        self.due.with(|due| due.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (id.clone(), *at)))
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
            let due = manager.0.schedule.next();
            let left = due.as_ref().map(|(_, at)| left(*at, manager.now()));
            match (due, left) {
                (Some((id, _)), Some(Duration::ZERO)) => {
                    let begun = Instant::now();
                    check_due(&manager, &id).await;
                    sleep(begun.elapsed() * REST).await;
                }
                (_, left) => {
                    tokio::select! {
                        () = manager.0.schedule.changed.notified() => {}
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
                        manager.0.schedule.due.with(|due| _ = due.entry(job.id.clone()).or_insert(at));
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
    let schedule = &manager.0.schedule;
    match manager.verify(id).await {
        Ok(_) => {}
        Err(ManagerError::NotFound { .. } | ManagerError::NotLoaded { .. }) => schedule.forget(id),
        Err(error) => {
            tracing::debug!(%id, %error, "a check is made again later");
            let interval = manager.get(id).await.ok().and_then(|job| job.spec.reverify_interval);
            let pause = interval.map_or(AGAIN_AFTER, |interval| interval.min(AGAIN_AFTER));
            match manager.now().checked_add(pause) {
                Ok(at) => schedule.put(id.clone(), at),
                Err(_) => schedule.forget(id),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

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
        let schedule = Schedule::default();
        let next = || schedule.next().map(|(id, at)| (id.to_string(), at.as_second()));
        schedule.note(&loaded("never", None, 0));
        assert_eq!(next(), None);
        schedule.note(&loaded("often", Some(10), 100));
        schedule.note(&loaded("seldom", Some(100), 0));
        assert_eq!(next(), Some(("seldom".to_owned(), 100)));
        schedule.note(&loaded("seldom", Some(100), 101));
        assert_eq!(next(), Some(("often".to_owned(), 110)));
        schedule.note(&Job { state: State::Stale, ..loaded("often", Some(10), 100) });
        assert_eq!(next(), Some(("seldom".to_owned(), 201)));
        schedule.note(&loaded("eternal", Some(u64::MAX / 2), 100));
        assert_eq!(next(), Some(("seldom".to_owned(), 201)));
    }

    #[test]
    fn a_check_is_due_from_its_time_on() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(left(at(10), at(7)), Duration::from_secs(3));
        assert_eq!((left(at(10), at(10)), left(at(10), at(12))), (Duration::ZERO, Duration::ZERO));
    }
}
