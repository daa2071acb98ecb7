//! Whether a load may go on now: pure answers over facts that others observed.

use std::time::Duration;

use alluxio_client::Worker;

use crate::{
    human::{bytes, chain},
    job::{Reason, Spec},
    survey::Survey,
};

/// A worker that sent no heartbeat for this long counts as silent, though the master lists it for minutes.
/// Alluxio's workers send one a second (alluxio.worker.block.heartbeat.interval); five missed ones are no hiccup.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Why a load may not go on, in terms of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    pub reason: Reason,
    pub message: String,
}

/// What the listing found missing, as far as room is concerned. Kept while a load waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes to be cached, over all wished copies.
    pub bytes_missing: u64,
    /// Bytes of the blocks that lack a copy, once: no worker takes more of them.
    pub bytes_short: u64,
    /// Bytes of the whole path, over all wished copies.
    pub bytes_total: u64,
}

impl Need {
    #[must_use]
    pub fn of(survey: &Survey) -> Self {
        Self {
            bytes_missing: survey.bytes_missing(),
            bytes_short: survey.bytes_short,
            bytes_total: survey.bytes_total,
        }
    }
}

/// A call to Alluxio gave no result.
#[must_use]
pub fn unreachable(error: &(dyn std::error::Error + 'static)) -> Shut {
    Shut { reason: Reason::AlluxioUnreachable, message: chain(error) }
}

/// The master lists it as in service and heard from it lately.
#[must_use]
pub fn is_live(worker: &Worker) -> bool {
    worker.last_contact <= SILENT_AFTER && !worker.state.to_ascii_lowercase().contains("lost")
}

/// Enough live workers for the wish.
#[must_use]
pub fn workers(spec: &Spec, workers: &[Worker]) -> Option<Shut> {
    let live = workers.iter().filter(|w| is_live(w)).count();
    let replicas = spec.replicas.get();
    let wanted = spec.min_workers.max(replicas) as usize;
    (live < wanted).then(|| {
        let why = if wanted > replicas as usize {
            format!("min_workers is {wanted}")
        } else {
            format!("{replicas} replicas need {wanted} workers")
        };
        Shut {
            reason: Reason::WorkersMissing,
            message: format!("{live} of {wanted} workers are live; {why}"),
        }
    })
}

/// A job worker that works; without one distributedLoad reports success and does nothing.
#[must_use]
pub fn job_workers(live: usize) -> Option<Shut> {
    (live == 0).then(|| Shut {
        reason: Reason::NoJobWorker,
        message: "no job worker is live; start alluxio job workers beside the workers".to_owned(),
    })
}

/// Room for what is missing. `promised`: bytes that other loads of ours are still going to cache.
#[must_use]
pub fn room(spec: &Spec, need: Need, workers: &[Worker], promised: u64) -> Option<Shut> {
    let live = || workers.iter().filter(|w| is_live(w));
    let (wanted, offered, kind) = if spec.allow_evict {
        // What is cached already may be evicted and loaded again, so the whole path counts.
        let replicas = u64::from(spec.replicas.get());
        let once = need.bytes_total / replicas;
        (need.bytes_total, total(live().map(|w| w.capacity_bytes.min(once))), "in all")
    } else {
        let free = |w: &Worker| w.capacity_bytes.saturating_sub(w.used_bytes);
        let usable = total(live().map(|w| free(w).min(need.bytes_short)));
        let unpromised = total(live().map(free)).saturating_sub(promised);
        (need.bytes_missing, usable.min(unpromised), "free")
    };
    (offered < wanted).then(|| Shut {
        reason: Reason::NotEnoughRoom,
        message: format!(
            "{} are needed and {} are {kind} on {} live workers; add workers or cache, free data{}",
            bytes(wanted),
            bytes(offered),
            live().count(),
            if spec.allow_evict { "" } else { ", or set allow_evict" },
        ),
    })
}

/// Of workers whose word it is: it may be anything.
fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::AlluxioPath;

    fn spec(replicas: u32, min_workers: u32) -> Spec {
        let path = AlluxioPath::try_from("/".to_owned()).unwrap();
        Spec { replicas: replicas.try_into().unwrap(), min_workers, ..Spec::new(path) }
    }

    fn worker(free: u64, last_contact: u64) -> Worker {
        Worker {
            state: "In Service".into(),
            capacity_bytes: 100 + free,
            used_bytes: 100,
            last_contact: Duration::from_secs(last_contact),
            ..Worker::default()
        }
    }

    fn need(missing: u64, short: u64) -> Need {
        Need { bytes_missing: missing, bytes_short: short, bytes_total: missing }
    }

    #[test]
    fn silent_workers_do_not_count() {
        let two = [worker(0, 0), worker(0, 60)];
        assert_eq!(workers(&spec(1, 0), &two), None);
        let shut = workers(&spec(2, 0), &two).unwrap();
        assert_eq!(shut.reason, Reason::WorkersMissing);
        assert_eq!(shut.message, "1 of 2 workers are live; 2 replicas need 2 workers");
        assert!(workers(&spec(1, 3), &two).unwrap().message.contains("min_workers is 3"));
    }

    #[test]
    fn lost_workers_do_not_count() {
        let lost = [Worker { state: "LOST".into(), ..worker(0, 0) }];
        assert!(workers(&spec(1, 0), &lost).is_some());
    }

    #[test]
    fn room_is_what_the_workers_can_use() {
        let two = [worker(50, 0), worker(10, 0)];
        assert_eq!(room(&spec(1, 0), need(60, 60), &two, 0), None);
        assert!(room(&spec(1, 0), need(61, 61), &two, 0).is_some());
        // Two copies of 20 bytes: the second worker has room for 10 only.
        assert!(room(&spec(2, 0), need(40, 20), &two, 0).is_some());
        assert_eq!(room(&spec(2, 0), need(20, 10), &two, 0), None);
    }

    #[test]
    fn room_promised_to_others_is_taken() {
        assert!(room(&spec(1, 0), need(60, 60), &[worker(100, 0)], 50).is_some());
        assert_eq!(room(&spec(1, 0), need(50, 50), &[worker(100, 0)], 50), None);
    }

    #[test]
    fn allow_evict_counts_the_whole_cache() {
        let evict = Spec { allow_evict: true, ..spec(1, 0) };
        assert_eq!(room(&evict, need(150, 150), &[worker(50, 0)], 0), None);
        assert!(room(&evict, need(151, 151), &[worker(50, 0)], 0).is_some());
    }

    #[test]
    fn sizes_beyond_any_sum_are_much_room() {
        let most = i64::MAX.cast_unsigned();
        let three = [0; 3].map(|_| worker(most - 100, 0));
        let evict = Spec { allow_evict: true, ..spec(1, 0) };
        for spec in [spec(1, 0), evict] {
            assert_eq!(room(&spec, need(most, most), &three, 0), None);
            assert_eq!(room(&spec, need(u64::MAX, u64::MAX), &three, 0), None);
        }
    }

    #[test]
    fn no_job_worker_shuts() {
        assert_eq!(job_workers(0).unwrap().reason, Reason::NoJobWorker);
        assert_eq!(job_workers(1), None);
    }
}
