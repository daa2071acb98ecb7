//! What moves the data: the command `alluxio fs distributedLoad`, or requests of our own to the workers.
//!
//! An engine's word is a hint. Whether data are in the cache is decided by verification alone.

pub mod distributed_load;
pub mod launcher;
pub mod leftovers;
pub mod lines;
pub mod memory;
pub mod native;
pub mod output;
pub mod process;
pub mod strays;
pub mod supervisor;

/// Failed files whose cause is kept; beyond that the list of failures goes without Alluxio's words.
const MAX_CAUSES: usize = 10_000;
