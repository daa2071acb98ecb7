//! A network that a control plane and nodes share: a machine of its own with a bridge, where the control plane
//! runs, and a way in for the test process.
//!
//! Invariants: the API server has the same address on both sides, so a kubeconfig file serves both; nodes know
//! it as [`ADDRESS`].

use super::part::{self, Part};
use crate::forward::Forward;
use crate::machine::Machine;
use crate::sandbox::Sandbox;
use crate::wait;
use anyhow::{Context, Result};
use std::fs;

/// The network's own address; nodes follow.
pub(crate) const ADDRESS: &str = "172.30.0.1";
/// What the machine's end of each cable is plugged into.
pub(crate) const BRIDGE: &str = "lan0";

/// See the module.
#[derive(Debug)]
pub(super) struct Lan {
    _api_server: Forward,
    pub(super) machine: Machine,
}

impl Lan {
    pub(super) async fn new(sandbox: &Sandbox) -> Result<Self> {
        let machine = Machine::new(sandbox, "lan")?;
        let resolver = sandbox.directory().join("resolv.conf");
        let names = format!("nameserver {ADDRESS}\nsearch svc.cluster.local cluster.local\n");
        fs::write(&resolver, names).context("write resolv.conf")?;
        let script = format!(
            "ip link set lo up
             ip link add {BRIDGE} type bridge
             ip address add {ADDRESS}/24 dev {BRIDGE}
             ip link set {BRIDGE} up
             echo 1 > /proc/sys/net/ipv4/ip_forward
             mount --bind '{}' /etc/resolv.conf",
            resolver.display()
        );
        machine.script(sandbox, &script, wait::LIMIT).await.context("set up the network of the nodes")?;
        let address = part::address(sandbox, Part::ApiServer);
        Ok(Self { _api_server: Forward::to(&machine, &address, &address)?, machine })
    }
}
