//! One worker: what it is going to be asked, and how much at once.
//!
//! Invariant: requests and bytes in flight are bounded.

use std::collections::VecDeque;

use alluxio_client::{UfsBlock, WorkerAddress};
use tokio_util::sync::CancellationToken;

use super::{SMALL_BLOCK, request::Request};

/// Batches in flight per worker. More make a worker no faster, and each holds its bytes in the worker's memory.
const BATCHES: usize = 4;
/// Blocks and bytes of a batch.
const BATCH_BLOCKS: usize = 50;
const BATCH_BYTES: u64 = SMALL_BLOCK;
/// Single blocks in flight per worker; 16 were as good as 400 (2.9.3).
const SINGLES: usize = 16;
/// Bytes of them in flight per worker.
const SINGLES_BYTES: u64 = 256 << 20;

/// One worker, and what it is going to be asked.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) address: WorkerAddress,
    /// What it takes for its own host, as far as we know.
    pub(super) source: String,
    pub(super) queue: VecDeque<Copy>,
    pub(super) requests: usize,
    pub(super) bytes: u64,
    /// Ends what is in flight when the worker falls silent.
    pub(super) alive: CancellationToken,
}

/// A copy of a block that some worker is to make.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) file: u64,
    pub(super) block: UfsBlock,
    pub(super) tries: u32,
    pub(super) asked_again: u32,
    pub(super) waits: u32,
    pub(super) handed_over: u32,
}

impl Copy {
    pub(super) fn new(file: u64, block: UfsBlock) -> Self {
        Self { file, block, tries: 0, asked_again: 0, waits: 0, handed_over: 0 }
    }
}

impl Lane {
    pub(super) fn new(address: &WorkerAddress, source: String) -> Self {
        Self {
            address: address.clone(),
            source,
            queue: VecDeque::new(),
            requests: 0,
            bytes: 0,
            alive: CancellationToken::new(),
        }
    }

    /// Whether the next copy may be sent now, and whether in a batch.
    pub(super) fn has_work(&self, batches: bool) -> Option<bool> {
        let first = self.queue.front()?;
        let batch = batches && first.block.length <= SMALL_BLOCK;
        let free = if batch {
            self.requests < BATCHES
        } else {
            self.requests < SINGLES
                && (self.requests == 0 || self.bytes.saturating_add(first.block.length) <= SINGLES_BYTES)
        };
        free.then_some(batch)
    }

    pub(super) fn next_request(&mut self, batch: bool) -> (Request, Vec<Copy>) {
        let mut copies: Vec<Copy> = self.queue.pop_front().into_iter().collect();
        let Some(first) = copies.first() else { return (Request::Load(Vec::new()), copies) };
        if !batch {
            // The guess failed it, perhaps.
            let source = if first.tries == 0 { self.source.clone() } else { self.address.host.clone() };
            return (Request::Cache { block: first.block.clone(), source }, copies);
        }
        let mut bytes = first.block.length;
        while copies.len() < BATCH_BLOCKS
            && let Some(next) = self.queue.front()
            && next.block.length.saturating_add(bytes) <= BATCH_BYTES
        {
            bytes += next.block.length;
            copies.extend(self.queue.pop_front());
        }
        (Request::Load(copies.iter().map(|copy| copy.block.clone()).collect()), copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn lane(lengths: &[u64]) -> Lane {
        let mut lane = Lane::new(&WorkerAddress::default(), "here".to_owned());
        lane.queue.extend(lengths.iter().zip(0..).map(|(length, id)| copy(id, *length)));
        lane
    }

    fn copy(id: i64, length: u64) -> Copy {
        let block = UfsBlock { id, length, ufs_path: "/f".into(), offset: 0, mount_id: 1 };
        Copy::new(0, block)
    }

    #[test]
    fn small_blocks_go_in_batches_of_bounded_size() {
        let mut lane = lane(&[MIB; 9]);
        assert_eq!(lane.has_work(true), Some(true));
        let (request, copies) = lane.next_request(true);
        assert_eq!((copies.len(), request.bytes()), (4, 4 * MIB));
        lane.queue = (0..200).map(|id| copy(id, 1)).collect();
        assert_eq!(lane.next_request(true).1.len(), BATCH_BLOCKS);
        lane.requests = BATCHES;
        assert_eq!(lane.has_work(true), None);
    }

    #[test]
    fn a_large_block_ends_a_batch_and_goes_alone() {
        let mut lane = lane(&[1, 64 * MIB, 1]);
        assert_eq!(lane.next_request(true).1.len(), 1);
        assert_eq!(lane.has_work(true), Some(false));
        let (request, _) = lane.next_request(false);
        assert!(matches!(request, Request::Cache { source, .. } if source == "here"));
    }

    #[test]
    fn bytes_in_flight_are_bounded_but_any_block_may_go() {
        let mut lane = lane(&[1024 * MIB]);
        assert_eq!(lane.has_work(true), Some(false));
        (lane.requests, lane.bytes) = (1, 1);
        assert_eq!(lane.has_work(true), None);
    }

    #[test]
    fn a_second_try_names_the_address_that_the_master_knows() {
        let address = WorkerAddress { host: "worker-0".to_owned(), ..WorkerAddress::default() };
        let mut lane = Lane::new(&address, "guess".to_owned());
        lane.queue.push_back(Copy { tries: 1, ..copy(1, 64 * MIB) });
        let (request, _) = lane.next_request(false);
        assert!(matches!(request, Request::Cache { source, .. } if source == "worker-0"));
    }
}
