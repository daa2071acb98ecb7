//! One load's states for any number of watchers.
//!
//! A state that woke ten thousand watchers at once would hold up every other call for the tenth of a second that
//! it takes to tell them. So watchers beyond the first [`GROUP`] listen in groups, and a relay tells one group
//! after the other; in between it rests, so that whatever else is due gets its turn and a share of the cores.
//!
//! Invariants: nobody hears of a state before the publisher does; each watcher hears of the last one; the relay
//! ends with the publisher or with the sidecar.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::parking::Shared;

/// Telling so many takes about a millisecond.
const GROUP: usize = 64;
/// About as long. Ten thousand have heard within half a second, which is how often progress is published.
const REST: Duration = Duration::from_millis(1);

/// The publisher's end.
#[derive(Debug)]
pub(super) struct Fanout<T> {
    source: watch::Sender<Arc<T>>,
    groups: Arc<Groups<T>>,
    relay: OnceLock<()>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

type Groups<T> = Shared<Vec<watch::Sender<Arc<T>>>>;

impl<T: Send + Sync + 'static> Fanout<T> {
    /// `tasks` own the relay, which ends at the latest with `stopping`.
    pub(super) fn new(first: Arc<T>, tasks: TaskTracker, stopping: CancellationToken) -> Self {
        let groups = Arc::new(Shared::default());
        Self { source: watch::Sender::new(first), groups, relay: OnceLock::new(), tasks, stopping }
    }

    /// The value published last.
    pub(super) fn latest(&self) -> Arc<T> {
        self.source.borrow().clone()
    }

    pub(super) fn publish(&self, value: Arc<T>) {
        self.source.send_replace(value);
    }

    /// Begins with the value published last.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        if self.source.receiver_count() < GROUP {
            return self.source.subscribe();
        }
        self.relay.get_or_init(|| {
            let (source, groups) = (self.source.subscribe(), Arc::clone(&self.groups));
            let stopping = self.stopping.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = relay(source, groups) => {}
                }
            });
        });
        self.groups.with(|groups| {
            let has_room = |group: &&watch::Sender<_>| group.receiver_count() < GROUP;
            match groups.last().filter(has_room).or_else(|| groups.iter().find(has_room)) {
                Some(group) => {
                    tell(group, || self.latest());
                    group.subscribe()
                }
                // The relay, which takes this lock to see which groups there are, has told them something
                // older, or is going to see this one.
                None => {
                    let (group, first) = watch::channel(self.latest());
                    groups.push(group);
                    first
                }
            }
        })
    }
}

/// Until the publisher is gone; then the groups end too, each after the last value.
async fn relay<T>(mut source: watch::Receiver<Arc<T>>, groups: Arc<Groups<T>>) {
    while source.changed().await.is_ok() {
        let all = groups.with(|groups| groups.clone());
        for group in all {
            // Read anew for each: a newcomer may have brought a group further than we are. Not marked as seen:
            // the groups before this one have to hear of it too.
            tell(&group, || source.borrow().clone());
            sleep(REST).await;
        }
    }
    groups.with(Vec::clear);
}

/// `latest` is asked under the group's lock, so that of two who tell the group neither takes it back.
fn tell<T>(group: &watch::Sender<Arc<T>>, latest: impl FnOnce() -> Arc<T>) {
    group.send_if_modified(|value| {
        let latest = latest();
        let is_news = !Arc::ptr_eq(value, &latest);
        *value = latest;
        is_news
    });
}

#[cfg(test)]
mod tests {
    use tokio::{task::yield_now, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// As many as make a few groups, the last of them not full.
    const WATCHERS: usize = 5 * GROUP + 7;

    fn fanout() -> Fanout<u32> {
        Fanout::new(Arc::new(0), TaskTracker::new(), CancellationToken::new())
    }

    #[tokio::test]
    async fn each_hears_of_the_last_value_and_of_the_end() {
        let fanout = fanout();
        let tasks = fanout.tasks.clone();
        let mut watchers: Vec<_> = (0..WATCHERS).map(|_| fanout.subscribe()).collect();
        for value in 1..=3 {
            fanout.publish(Arc::new(value));
        }
        for watcher in &mut watchers {
            assert!(timeout(LIMIT, watcher.wait_for(|value| **value == 3)).await.is_ok_and(|v| v.is_ok()));
        }
        fanout.publish(Arc::new(4));
        assert_eq!(*fanout.latest(), 4);
        drop(fanout);
        for watcher in &mut watchers {
            assert!(timeout(LIMIT, watcher.wait_for(|value| **value == 4)).await.is_ok_and(|v| v.is_ok()));
            assert!(timeout(LIMIT, watcher.changed()).await.is_ok_and(|ended| ended.is_err()));
        }
        tasks.close();
        assert!(timeout(LIMIT, tasks.wait()).await.is_ok());
    }

    #[tokio::test]
    async fn who_comes_late_begins_with_the_present_value_and_never_goes_back() {
        let fanout = fanout();
        let mut watchers: Vec<_> = (0..WATCHERS).map(|_| fanout.subscribe()).collect();
        // The relay has had no turn yet.
        fanout.publish(Arc::new(1));
        let late = fanout.subscribe();
        assert_eq!(**late.borrow(), 1);
        fanout.publish(Arc::new(2));
        yield_now().await;
        watchers.push(fanout.subscribe());
        watchers.push(late);
        fanout.publish(Arc::new(3));
        for watcher in &mut watchers {
            let mut seen = 0;
            while seen < 3 {
                let now = **watcher.borrow_and_update();
                assert!(now >= seen, "{now} after {seen}");
                seen = now;
                if seen < 3 {
                    timeout(LIMIT, watcher.changed()).await.expect("nobody is left out").unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn the_relay_ends_with_the_sidecar() {
        let fanout = fanout();
        let _watchers: Vec<_> = (0..WATCHERS).map(|_| fanout.subscribe()).collect();
        fanout.stopping.cancel();
        fanout.tasks.close();
        assert!(timeout(LIMIT, fanout.tasks.wait()).await.is_ok());
    }
}
