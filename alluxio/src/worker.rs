//! Block workers as the master sees them.

use crate::{
    Error,
    wire::{WorkerNetAddress, block},
};
use std::{fmt, time::Duration};

/// A block worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worker {
    /// The id that [`crate::Block::workers`] refers to. Workers get new ids when the master restarts.
    pub id: i64,
    /// Where it listens.
    pub address: WorkerAddress,
    /// The master's word: "In Service" (2.9.3) or "ACTIVE" (2.9.6), also for minutes after its death.
    pub state: String,
    /// Time since its last heartbeat by the master's clock, whole seconds; heartbeats come every second.
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

impl fmt::Display for WorkerAddress {
    /// `host:port`, with brackets around an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.starts_with('[') {
            write!(f, "[{}]:{}", self.host, self.rpc_port)
        } else {
            write!(f, "{}:{}", self.host, self.rpc_port)
        }
    }
}

impl TryFrom<block::WorkerInfo> for Worker {
    type Error = Error;

    /// Id and address must be there; negative sizes and ages count as 0, which promises no room.
    fn try_from(info: block::WorkerInfo) -> Result<Worker, Error> {
        Ok(Worker {
            id: info.id.ok_or_else(|| protocol("a worker without an id"))?,
            address: info.address.unwrap_or_default().try_into()?,
            state: info.state.unwrap_or_default(),
            last_contact: Duration::from_secs(
                info.last_contact_sec.unwrap_or(i32::MAX).try_into().unwrap_or(0),
            ),
            capacity_bytes: info.capacity_bytes.unwrap_or_default().try_into().unwrap_or(0),
            used_bytes: info.used_bytes.unwrap_or_default().try_into().unwrap_or(0),
            start_time_ms: info.start_time_ms.unwrap_or_default(),
            version: info.build_version.unwrap_or_default().version.unwrap_or_default(),
        })
    }
}

impl TryFrom<WorkerNetAddress> for WorkerAddress {
    type Error = Error;

    fn try_from(address: WorkerNetAddress) -> Result<WorkerAddress, Error> {
        let port = address.rpc_port.unwrap_or_default();
        Ok(WorkerAddress {
            host: address.host.ok_or_else(|| protocol("a worker without a host"))?,
            rpc_port: u16::try_from(port).map_err(|_| protocol(&format!("worker port {port}")))?,
            container_host: address.container_host.unwrap_or_default(),
        })
    }
}

fn protocol(message: &str) -> Error {
    Error::Protocol { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> WorkerAddress {
        WorkerAddress { host: host.to_owned(), rpc_port: 29999, container_host: String::new() }
    }

    #[test]
    fn addresses_are_written_as_an_uri_wants_them() {
        assert_eq!(address("worker-0").to_string(), "worker-0:29999");
        assert_eq!(address("fd00::7").to_string(), "[fd00::7]:29999");
        assert_eq!(address("[fd00::7]").to_string(), "[fd00::7]:29999");
    }

    #[test]
    fn senseless_numbers_promise_nothing() {
        let wire = block::WorkerInfo {
            id: Some(-7),
            address: Some(WorkerNetAddress { host: Some("w".to_owned()), ..Default::default() }),
            capacity_bytes: Some(i64::MIN),
            used_bytes: Some(-1),
            last_contact_sec: None,
            ..Default::default()
        };
        let worker = Worker::try_from(wire).unwrap();
        assert_eq!((worker.id, worker.capacity_bytes, worker.used_bytes), (-7, 0, 0));
        assert!(worker.last_contact > Duration::from_secs(1_000_000), "never heard of is not just heard of");
    }

    #[test]
    fn a_port_out_of_range_is_a_protocol_error() {
        for port in [-1, 65_536, i32::MIN, i32::MAX] {
            let wire =
                WorkerNetAddress { host: Some("w".to_owned()), rpc_port: Some(port), ..Default::default() };
            assert!(matches!(WorkerAddress::try_from(wire), Err(Error::Protocol { .. })), "{port}");
        }
    }
}
