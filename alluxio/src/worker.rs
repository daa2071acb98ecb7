//! Block workers as the master sees them.

use std::time::Duration;

/// A block worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worker {
    /// The id that [`crate::Block::workers`] refers to.
    pub id: i64,
    /// Where it listens.
    pub address: WorkerAddress,
    /// The master's word: "In Service" (2.9.3) or "ACTIVE" (2.9.6), also for minutes after its death.
    pub state: String,
    /// Time since its last heartbeat, whole seconds.
    pub last_contact: Duration,
    /// Bytes of cache.
    pub capacity_bytes: u64,
    /// Bytes of cache in use.
    pub used_bytes: u64,
    /// Milliseconds since the epoch of its start.
    pub start_time_ms: i64,
    /// Its version; empty where the cluster does not tell.
    pub version: String,
}

/// Where a block worker listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerAddress {
    /// Host name or address.
    pub host: String,
    /// Port of its gRPC server.
    pub rpc_port: u16,
    /// Host of the container, where it differs from `host`; else empty.
    pub container_host: String,
}
