//! Everything that speaks to sidecars: one small task per load that a Preload asks for.
//!
//! It decides nothing: it works on the orders of a plan, tries again for ever with growing pauses, and tells
//! what it has seen. Nobody waits for it, so that a sidecar which hangs delays no other.
//!
//! Invariants: one task per Preload and load; a StartLoad under way is never dropped, so a cancellation that
//! follows cannot overtake it; a task ends when its order does, at the latest with [`Sidecars::stop`].

mod access;
mod convert;
mod session;

pub use access::{Access, AccessError, Files, Trust};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::Preload,
    lease::Leadership,
    preload::{
        load::{Answer, Seen},
        plan::{Intent, Order},
    },
};
use session::Session;

/// How long calls under way may take once all is to end.
const STOPPING: Duration = Duration::from_secs(2);

/// Whose load it is.
pub type Key = ObjectRef<Preload>;

/// All sessions of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Sidecars {
    access: Arc<Access>,
    news: mpsc::UnboundedSender<Key>,
    sessions: Arc<Mutex<HashMap<Key, HashMap<String, Handle>>>>,
    leadership: Leadership,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Its session ends when it is dropped, after the call that is under way.
#[derive(Debug)]
struct Handle {
    order: watch::Sender<Order>,
    seen: Arc<Mutex<Seen>>,
}

impl Sidecars {
    /// `news` hears of a Preload whenever something new was seen for it.
    #[must_use]
    pub fn new(access: Arc<Access>, news: mpsc::UnboundedSender<Key>, leadership: Leadership) -> Self {
        Self {
            access,
            news,
            sessions: Arc::default(),
            leadership,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Makes `orders` all that is asked for this Preload.
    pub fn follow(&self, key: &Key, orders: Vec<Order>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.is_empty() || self.stop.is_cancelled() {
            sessions.remove(key);
            return;
        }
        let own = sessions.entry(key.clone()).or_default();
        own.retain(|id, _| orders.iter().any(|order| order.load_id == *id));
        for order in orders {
            match own.get(&order.load_id) {
                Some(handle) => {
                    handle.order.send_if_modified(|current| {
                        let changed = *current != order;
                        if changed && matches!(order.intent, Intent::Start(_)) {
                            // That there is no load is true no longer than until it is started.
                            let mut seen = handle.seen.lock().unwrap_or_else(PoisonError::into_inner);
                            if seen.answer == Answer::NotFound {
                                seen.answer = Answer::None;
                            }
                        }
                        *current = order;
                        changed
                    });
                }
                None => {
                    own.insert(order.load_id.clone(), self.open(key, order));
                }
            }
        }
    }

    fn open(&self, key: &Key, order: Order) -> Handle {
        let (sender, orders) = watch::channel(order);
        let seen = Arc::<Mutex<Seen>>::default();
        let (access, news, leadership) = (self.access.clone(), self.news.clone(), self.leadership.clone());
        self.tasks.spawn(Session::new(key.clone(), orders, access, seen.clone(), news, leadership).run());
        Handle { order: sender, seen }
    }

    /// What is known of the loads of a Preload, by id.
    #[must_use]
    pub fn seen(&self, key: &Key) -> BTreeMap<String, Seen> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = sessions.get(key) else { return BTreeMap::new() };
        let look = |handle: &Handle| handle.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.iter().map(|(id, handle)| (id.clone(), look(handle))).collect()
    }

    /// Drops the sessions of Preloads that are gone.
    pub fn retain(&self, mut exists: impl FnMut(&Key) -> bool) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| exists(key));
    }

    /// How many loads are being asked about.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).values().map(HashMap::len).sum()
    }

    /// Ends every session. Waits for calls under way, but not for a sidecar that hangs.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tasks.close();
        if tokio::time::timeout(STOPPING, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                sessions = self.tasks.len(),
                "sidecars do not answer; their sessions are left alone"
            );
        }
    }
}
