//! Proves that blocks which were loaded in batches are whole.
//!
//! The workers' Load RPC takes what it gets: of a file that was truncated in the UFS since its metadata were loaded it
//! caches the rest, and calls it the block (2.9.3). Where a load was alone with the cache, the workers' used bytes have
//! grown by exactly what they acknowledged, and nothing more needs to be asked. Else each small block is asked for its
//! last byte, and one that has none is taken out of the cache again.

use std::collections::{BTreeMap, HashMap};

use alluxio_client::{Client, Error, LoadMetadata, Worker, WorkerAddress};
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{SMALL_BLOCK, request::REMOVED_WITHIN};
use crate::{engine::MAX_CAUSES, job::AlluxioPath};

/// Calls in flight.
const ASKING: usize = 64;
/// Times that a block is asked, since what is not whole is removed, and the pause before the next.
const TRIES: u32 = 3;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// For one round trip to a worker.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The used bytes of every worker have grown by exactly what it acknowledged.
///
/// `acknowledged` names each worker that was sent a batch, with 0 for one that has acknowledged nothing.
#[must_use]
pub fn add_up(before: &[Worker], after: &[Worker], acknowledged: &BTreeMap<i64, u64>) -> bool {
    acknowledged.iter().all(|(id, bytes)| {
        let used = |workers: &[Worker]| workers.iter().find(|w| w.id == *id).map(|w| w.used_bytes);
        used(before).and_then(|before| before.checked_add(*bytes)).is_some_and(|sum| used(after) == Some(sum))
    })
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Files of which blocks were too short, and why; those blocks are in the cache no longer.
    pub short: HashMap<String, String>,
    /// Small blocks with fewer copies than wished on the workers that were asked, and copies that did not answer or have
    /// left the cache.
    pub unproven: u64,
    /// Copies on workers that were not asked. When they come back, nobody knows whether they are whole.
    pub unasked: u64,
}

/// Asks every small block below `path` for its last byte, on each of `workers` that holds a copy.
pub async fn sweep(
    client: &Client,
    path: &AlluxioPath,
    replicas: u32,
    workers: &[Worker],
) -> Result<Swept, Error> {
    let wished = usize::try_from(replicas).unwrap_or(usize::MAX);
    let (mut unproven, mut unasked) = (0, 0);
    let addresses: HashMap<i64, &WorkerAddress> = workers.iter().map(|w| (w.id, &w.address)).collect();
    let (mut short, mut silent) = (HashMap::new(), 0);
    let mut note = |asked: Asked| match asked {
        Asked::Whole => {}
        Asked::Short(path) if short.len() < MAX_CAUSES => {
            let why = "it has become shorter in the under file system since its metadata were loaded: load it with \
                       load_metadata ALWAYS";
            short.insert(path, why.to_owned());
        }
        Asked::Short(_) => {}
        Asked::Silent => silent += 1,
    };
    let mut asking = FuturesUnordered::new();
    let mut listing = client.list(path.as_str(), LoadMetadata::Never).await?;
    while let Some(file) = listing.next().await? {
        // The native engine loads no others, and what is only in the cache must never be removed from it.
        if !file.persisted || !file.completed {
            continue;
        }
        let small = file.blocks.iter().filter(|block| (1..=SMALL_BLOCK).contains(&block.length));
        for block in small {
            let holders: Vec<_> = block.workers.iter().filter_map(|id| addresses.get(id).copied()).collect();
            unproven += u64::from(holders.len() < wished);
            unasked += (block.workers.len() - holders.len()) as u64;
            for address in holders {
                if asking.len() == ASKING {
                    asking.next().await.into_iter().for_each(&mut note);
                }
                asking.push(ask(client, address, (block.id, block.length), file.path.clone()));
            }
        }
    }
    while let Some(asked) = asking.next().await {
        note(asked);
    }
    Ok(Swept { short, unproven: unproven + silent, unasked })
}

/// What is known of one copy of a block.
enum Asked {
    Whole,
    /// It was too short, and is removed. Of the file at this path.
    Short(String),
    /// The worker has it no longer, did not say, or did not remove it. One block that cannot be read must not hide the
    /// others.
    Silent,
}

async fn ask(client: &Client, worker: &WorkerAddress, block: (i64, u64), path: String) -> Asked {
    let mut asked = client.has_last_byte(worker, block, ANSWER_WITHIN).await;
    for _ in 1..TRIES {
        if matches!(asked, Ok(true) | Err(Error::NotFound { .. })) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        asked = client.has_last_byte(worker, block, ANSWER_WITHIN).await;
    }
    match asked {
        Ok(true) => Asked::Whole,
        Ok(false) => {
            tracing::warn!(path, block = block.0, %worker, "a block is shorter than its file says, and is removed");
            match client.remove_block(worker, block.0, REMOVED_WITHIN).await {
                Ok(()) | Err(Error::NotFound { .. }) => Asked::Short(path),
                Err(error) => {
                    tracing::warn!(path, block = block.0, %worker, %error, "it cannot be removed");
                    Asked::Silent
                }
            }
        }
        Err(error) => {
            tracing::debug!(path, block = block.0, %worker, %error, "a block does not tell its length");
            Asked::Silent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_bytes_add_up_only_to_the_byte() {
        let worker = |id, used_bytes| Worker { id, used_bytes, ..Worker::default() };
        let before = [worker(1, 100), worker(2, 7)];
        let acknowledged = BTreeMap::from([(1, 30)]);
        assert!(add_up(&before, &[worker(1, 130), worker(2, 9)], &acknowledged));
        for used in [129, 131, 100] {
            assert!(!add_up(&before, &[worker(1, used), worker(2, 7)], &acknowledged), "{used}");
        }
        assert!(!add_up(&before, &[worker(2, 7)], &acknowledged), "it is gone");
        assert!(!add_up(&[], &[worker(1, 30)], &acknowledged), "it was not there");
        let nothing = BTreeMap::from([(2, 0)]);
        assert!(add_up(&before, &[worker(2, 7)], &nothing));
        assert!(
            !add_up(&before, &[worker(2, 8)], &nothing),
            "a batch that was not acknowledged left something"
        );
        assert!(add_up(&before, &[], &BTreeMap::new()));
    }
}
