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

pub use access::{Access, AccessError, Credentials};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::Preload,
    preload::{load::Seen, plan::Order},
};
use session::Session;

/// Whose load it is.
pub type Key = ObjectRef<Preload>;

/// All sessions of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Sidecars {
    access: Arc<Access>,
    news: mpsc::UnboundedSender<Key>,
    sessions: Arc<Mutex<HashMap<Key, HashMap<String, Handle>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Handle {
    order: watch::Sender<Order>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sidecars {
    /// `news` hears of a Preload whenever something new was seen for it.
    #[must_use]
    pub fn new(access: Arc<Access>, news: mpsc::UnboundedSender<Key>) -> Self {
        Self {
            access,
            news,
            sessions: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Makes `orders` all that is asked for this Preload.
    pub fn follow(&self, key: &Key, orders: Vec<Order>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.is_empty() {
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
        let stop = self.stop.child_token();
        let session = Session::new(key.clone(), orders, self.access.clone(), seen.clone(), self.news.clone());
        let stopped = stop.clone();
        self.tasks.spawn(async move { stopped.run_until_cancelled_owned(session.run()).await });
        Handle { order: sender, seen, stop }
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

    /// Ends every session, and waits until they are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
