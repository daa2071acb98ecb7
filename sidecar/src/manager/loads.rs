//! All live loads: in the order of their coming, and by id.
//!
//! Invariant: a load is here from the moment it is durable until its terminal state is durable. A call costs the
//! same however many loads wait, unless one of them may begin.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{admission, live::Live};
use crate::job::LoadId;

#[derive(Debug, Default)]
pub(super) struct Loads {
    /// By a number that grows.
    in_order: BTreeMap<u64, Arc<Live>>,
    /// The newest of that id: one that has ended may not have left yet.
    by_id: HashMap<LoadId, (u64, Arc<Live>)>,
    next: u64,
    admitted: usize,
}

impl Loads {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.in_order.values()
    }

    pub(super) fn get(&self, id: &LoadId) -> Option<&Arc<Live>> {
        self.by_id.get(id).map(|(_, live)| live)
    }

    pub(super) fn add(&mut self, live: Arc<Live>) {
        self.next += 1;
        self.in_order.insert(self.next, Arc::clone(&live));
        self.by_id.insert(live.id.clone(), (self.next, live));
    }

    pub(super) fn remove(&mut self, ended: &Arc<Live>) {
        let number = match self.by_id.get(&ended.id) {
            Some((number, newest)) if Arc::ptr_eq(newest, ended) => {
                let number = *number;
                self.by_id.remove(&ended.id);
                Some(number)
            }
            // Another one has its id already.
            _ => self.in_order.iter().find(|(_, live)| Arc::ptr_eq(live, ended)).map(|(number, _)| *number),
        };
        if number.and_then(|number| self.in_order.remove(&number)).is_some() && ended.admitted.is_cancelled()
        {
            self.admitted -= 1;
        }
    }

    /// Lets loads go ahead, `limit` at once at most.
    pub(super) fn admit(&mut self, limit: usize) {
        if self.admitted >= limit {
            return;
        }
        let all: Vec<&Arc<Live>> = self.in_order.values().collect();
        let loads: Vec<_> = all.iter().map(|live| (&live.path, live.admitted.is_cancelled())).collect();
        for index in admission::admit(&loads, limit) {
            all[index].admitted.cancel();
            self.admitted += 1;
        }
    }
}
