//! What moves the data: today the command `alluxio fs distributedLoad`.
//!
//! An engine's word is a hint. Whether data are in the cache is decided by verification alone.

pub mod distributed_load;
pub mod launcher;
pub mod leftovers;
pub mod memory;
pub mod output;
pub mod process;
pub mod strays;
pub mod supervisor;
