//! What a worker takes for its own host when it is asked to read from there.
//!
//! A worker reads the UFS itself only when the source of a request is the canonical name of its own first address
//! that is not loopback. Where we guess wrong the worker dials itself: right, but each block costs it 80 ms more
//! (2.9.3), or the name is unknown to it and the request fails at once. So a guess is made once per block; a retry
//! names the address that the worker told the master.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use alluxio_client::WorkerAddress;
use tokio::time::timeout;

/// A name service that takes longer is not worth the wait.
const LOOK_UP_WITHIN: Duration = Duration::from_millis(200);

/// TEST-NET-1 (RFC 5737): where a packet would leave this machine. None is sent.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 254), 9);

/// The best guess for `worker`.
pub(super) async fn guess(worker: &WorkerAddress) -> String {
    let advertised = worker.host.clone();
    let host =
        if worker.container_host.is_empty() { worker.host.clone() } else { worker.container_host.clone() };
    let look_up = tokio::task::spawn_blocking(move || {
        let address = address(&host)?;
        let address = if address.is_loopback() { outward_address()? } else { address };
        Some(canonical_name(address))
    });
    match timeout(LOOK_UP_WITHIN, look_up).await {
        Ok(Ok(Some(name))) => name,
        _ => advertised,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.parse().ok().or_else(|| dns_lookup::lookup_host(host).ok()?.next())
}

/// A worker on a loopback address runs here.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// As Java's `InetAddress.getCanonicalHostName`: the name, if it leads back to the address, else the address.
fn canonical_name(address: IpAddr) -> String {
    let literal = address.to_string();
    let Ok(name) = dns_lookup::lookup_addr(&address) else { return literal };
    let leads_back =
        dns_lookup::lookup_host(&name).is_ok_and(|mut found| found.any(|found| found == address));
    if leads_back { name } else { literal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_on_loopback_is_on_this_machine() {
        let worker = |host: &str| WorkerAddress { host: host.to_owned(), ..WorkerAddress::default() };
        let guessed = guess(&worker("127.9.9.9")).await;
        if let Some(own) = outward_address() {
            assert_eq!(guessed, canonical_name(own));
        }
        // RFC 5737 and 2606: addresses without a name, and names without an address.
        assert_eq!(canonical_name(IpAddr::from([192, 0, 2, 77])), "192.0.2.77");
        assert_eq!(guess(&worker("worker-0.invalid")).await, "worker-0.invalid");
    }
}
