//! Which worker gets which block. Pure.
//!
//! Invariants: the copies of a block are on distinct live workers; blocks that are in the cache already count; as long
//! as there is room, each worker holds as much of the path as the others.

use std::collections::{BTreeMap, BTreeSet};

use alluxio_client::Worker;

/// A worker with less than one part in so many of its cache free gets blocks only when all others are as full: its
/// own heartbeat is up to a second old, and a full one evicts.
const SCARCE_BELOW: u64 = 20;
/// Looks for which a worker that the master does not know may come back. A copy waits for as many at most.
pub(super) const LOOKS: u32 = 15;

/// What is known of the workers, and what was planned upon it.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    workers: BTreeMap<i64, Share>,
    /// Who got the block before this one.
    last: Option<i64>,
    /// A worker without room may be asked: it evicts.
    evicts: bool,
}

/// What is thought of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    Live,
    /// It did not answer, or the master does not know it, as after a restart: nothing is sent to it until the master has
    /// heard of it. It is gone after so many further looks at which the master knows nothing of it.
    Suspect(u32),
    #[default]
    Gone,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    standing: Standing,
    /// Bytes of the path that it holds, or is going to.
    planned: u64,
    /// Bytes that it has room for, beside what is planned.
    room: u64,
    /// Below this its room is scarce.
    scarce: u64,
}

impl Placement {
    /// `held`: bytes of the path that are in the cache of each worker already.
    #[must_use]
    pub(super) fn new(workers: &[Worker], held: &BTreeMap<i64, u64>, evicts: bool) -> Self {
        let share = |worker: &Worker| Share {
            standing: Standing::Live,
            planned: held.get(&worker.id).copied().unwrap_or_default(),
            room: worker.capacity_bytes.saturating_sub(worker.used_bytes),
            scarce: worker.capacity_bytes / SCARCE_BELOW,
        };
        Self {
            workers: workers.iter().map(|worker| (worker.id, share(worker))).collect(),
            last: None,
            evicts,
        }
    }

    /// A worker for a copy of `length` bytes that is not in `except`; `None` when there is none.
    pub(super) fn place(&mut self, length: u64, except: &[i64]) -> Option<i64> {
        let worst = |id: i64, share: &Share| {
            let left = share.room.saturating_sub(length);
            if share.room >= length && left >= share.scarce {
                (false, share.planned, self.last == Some(id))
            } else {
                // The emptiest of the full ones.
                (true, u64::MAX - share.room, false)
            }
        };
        let may = |share: &Share| share.is_live() && (self.evicts || share.room >= length);
        let candidates = self.workers.iter().filter(|(id, share)| may(share) && !except.contains(id));
        let id = candidates.min_by_key(|(id, share)| worst(**id, share)).map(|(id, _)| *id)?;
        if let Some(share) = self.workers.get_mut(&id) {
            share.planned = share.planned.saturating_add(length);
            share.room = share.room.saturating_sub(length);
        }
        self.last = Some(id);
        Some(id)
    }

    /// Takes back what [`Placement::place`] planned.
    pub(super) fn take_back(&mut self, worker: i64, length: u64) {
        if let Some(share) = self.workers.get_mut(&worker) {
            share.planned = share.planned.saturating_sub(length);
            share.room = share.room.saturating_add(length);
        }
    }

    /// Those that get blocks from now on; `known`: all that the master knows anything of. New ones join; gives those that
    /// were live and are not.
    pub(super) fn set_live(&mut self, workers: &[Worker], known: &[i64]) -> Vec<i64> {
        let now: BTreeSet<i64> = workers.iter().map(|worker| worker.id).collect();
        let gone = |(id, share): (&i64, &mut Share)| {
            let was_live = share.is_live();
            share.standing = match share.standing {
                _ if now.contains(id) => Standing::Live,
                Standing::Live if !known.contains(id) => Standing::Suspect(LOOKS),
                Standing::Suspect(looks @ 1..) if !known.contains(id) => Standing::Suspect(looks - 1),
                _ => Standing::Gone,
            };
            (was_live && !share.is_live()).then_some(*id)
        };
        let gone = self.workers.iter_mut().filter_map(gone).collect();
        let new = workers.iter().filter(|worker| !self.workers.contains_key(&worker.id));
        let new = Self::new(&new.cloned().collect::<Vec<_>>(), &BTreeMap::new(), self.evicts);
        self.workers.extend(new.workers);
        gone
    }

    /// Nothing is sent to it until it is known to be live again.
    pub(super) fn suspect(&mut self, worker: i64) {
        if let Some(share) = self.workers.get_mut(&worker) {
            share.standing = Standing::Suspect(LOOKS);
        }
    }

    /// There is a live worker that is none of `workers`.
    #[must_use]
    pub(super) fn another_than(&self, workers: &[i64]) -> bool {
        self.workers.iter().any(|(id, share)| share.is_live() && !workers.contains(id))
    }

    #[must_use]
    pub(super) fn is_live(&self, worker: i64) -> bool {
        self.workers.get(&worker).is_some_and(Share::is_live)
    }

    #[must_use]
    pub(super) fn any_live(&self) -> bool {
        self.workers.values().any(Share::is_live)
    }

    /// Some worker did not answer, and it is not known yet whether it is gone; or none is live, as right after a
    /// restart of the master.
    #[must_use]
    pub(super) fn may_improve(&self) -> bool {
        self.workers.values().any(|share| matches!(share.standing, Standing::Suspect(_))) || !self.any_live()
    }
}

impl Share {
    fn is_live(&self) -> bool {
        self.standing == Standing::Live
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn worker(id: i64, capacity_bytes: u64, used_bytes: u64) -> Worker {
        Worker { id, capacity_bytes, used_bytes, ..Worker::default() }
    }

    fn planned(placement: &Placement) -> Vec<u64> {
        placement.workers.values().map(|share| share.planned).collect()
    }

    #[test]
    fn equal_blocks_are_spread_evenly_and_those_of_a_file_too() {
        let workers = [worker(1, 1000 * MIB, 300 * MIB), worker(2, 1000 * MIB, 0), worker(3, 500 * MIB, 0)];
        let mut placement = Placement::new(&workers, &BTreeMap::new(), true);
        let got: Vec<_> = (0..6).filter_map(|_| placement.place(MIB, &[])).collect();
        assert_eq!(got, [1, 2, 3, 1, 2, 3]);
        assert_eq!(planned(&placement), [2 * MIB; 3]);
    }

    #[test]
    fn what_is_cached_already_counts() {
        let workers = [worker(1, 1000, 0), worker(2, 1000, 0)];
        let mut placement = Placement::new(&workers, &BTreeMap::from([(1, 30)]), true);
        let got: Vec<_> = (0..4).filter_map(|_| placement.place(10, &[])).collect();
        assert_eq!(got, [2, 2, 2, 1]);
    }

    #[test]
    fn who_has_little_room_gets_less() {
        let workers = [worker(1, 1000, 940), worker(2, 1000, 0)];
        let mut placement = Placement::new(&workers, &BTreeMap::new(), true);
        let got: Vec<_> = (0..4).filter_map(|_| placement.place(10, &[])).collect();
        assert_eq!(got, [1, 2, 2, 2]);
        // When all are full, the one with most room: somebody has to evict.
        let mut full = Placement::new(&[worker(1, 100, 100), worker(2, 100, 99)], &BTreeMap::new(), true);
        assert_eq!(full.place(10, &[]), Some(2));
        full.evicts = false;
        assert_eq!((full.place(10, &[]), full.place(1, &[])), (None, None), "what it evicted left no room");
    }

    #[test]
    fn copies_go_to_workers_that_have_none() {
        let workers = [worker(1, 1000, 0), worker(2, 1000, 0)];
        let mut placement = Placement::new(&workers, &BTreeMap::new(), true);
        assert_eq!(placement.place(10, &[1]), Some(2));
        assert_eq!(placement.place(10, &[1, 2]), None);
        placement.suspect(2);
        assert_eq!((placement.place(10, &[1]), placement.may_improve()), (None, true));
        assert!(placement.set_live(&workers, &[1, 2]).is_empty());
        assert_eq!((placement.place(10, &[1]), placement.may_improve()), (Some(2), false));
    }

    #[test]
    fn workers_come_and_go() {
        let two = [worker(1, 1000, 0), worker(2, 1000, 0)];
        let mut placement = Placement::new(&two, &BTreeMap::new(), true);
        assert_eq!(placement.set_live(&[worker(2, 1000, 0), worker(3, 1000, 0)], &[1, 2, 3]), [1]);
        assert_eq!((placement.is_live(1), placement.is_live(3)), (false, true));
        assert_eq!(placement.set_live(&two, &[1, 2, 3]), [3]);
        assert!(placement.is_live(1));
    }

    #[test]
    fn a_worker_that_a_new_master_does_not_know_yet_is_waited_for_but_not_for_ever() {
        let two = [worker(1, 1000, 0), worker(2, 1000, 0)];
        let mut placement = Placement::new(&two, &BTreeMap::new(), true);
        assert_eq!(placement.set_live(&two[..1], &[1]), [2]);
        for _ in 0..LOOKS {
            assert!(placement.may_improve());
            assert!(placement.set_live(&two[..1], &[1]).is_empty());
        }
        assert!(placement.may_improve());
        assert!(placement.set_live(&two[..1], &[1]).is_empty());
        assert!(!placement.may_improve());
        // One that the master knows to be silent is gone at once.
        assert_eq!(placement.set_live(&[], &[1]), [1]);
        assert!(placement.may_improve(), "none is live");
        assert!(placement.set_live(&two, &[1, 2]).is_empty());
        assert!(placement.is_live(2));
    }

    proptest! {
        #[test]
        fn copies_are_distinct_and_loads_differ_by_one_block_at_most(
            workers in 1_i64..6,
            replicas in 1_usize..4,
            lengths in proptest::collection::vec(1_u64..MIB, 1..200),
        ) {
            let all: Vec<Worker> = (0..workers).map(|id| worker(id, 4096 * MIB, 0)).collect();
            let mut placement = Placement::new(&all, &BTreeMap::new(), true);
            for length in &lengths {
                let mut got = Vec::new();
                while got.len() < replicas && let Some(id) = placement.place(*length, &got) {
                    prop_assert!(!got.contains(&id));
                    got.push(id);
                }
                prop_assert_eq!(got.len(), replicas.min(all.len()));
            }
            if replicas == 1 {
                let longest = lengths.iter().max().copied().unwrap_or_default();
                let planned = planned(&placement);
                let (most, least) = (planned.iter().max(), planned.iter().min());
                prop_assert!(most.unwrap() - least.unwrap() <= longest);
            }
        }

        #[test]
        fn nothing_is_lost_when_plans_are_taken_back(lengths in proptest::collection::vec(1_u64..MIB, 1..50)) {
            let mut placement = Placement::new(&[worker(1, MIB, 0), worker(2, 64 * MIB, MIB)], &BTreeMap::new(), true);
            let before = placement.clone();
            let big = lengths.iter().filter(|length| **length < 1000);
            let placed: Vec<_> = big.filter_map(|length| Some((placement.place(*length, &[])?, *length))).collect();
            for (worker, length) in placed {
                placement.take_back(worker, length);
            }
            prop_assert_eq!(planned(&placement), planned(&before));
        }
    }
}
