//! The real `kubectl port-forward`.

use super::Nodes;
use crate::leash::Leash;
use crate::{prerequisites, wait};
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// A port here that leads to one of a pod, through the API server and the kubelet. Ends when it is dropped.
#[derive(Debug)]
pub struct PortForward {
    address: String,
    _leash: Leash,
}

impl PortForward {
    /// Returns once it forwards.
    pub async fn start(nodes: &Nodes, namespace: &str, pod: &str, port: u16) -> Result<Self> {
        let kubernetes = nodes.kubernetes();
        let sandbox = kubernetes.sandbox();
        let address = sandbox.free_address();
        let (host, local) = address.split_once(':').context("HOST:PORT")?;
        let log = sandbox.folder("port-forward")?.join("log");
        let mut command = Command::new(prerequisites::kubernetes()?);
        command.args(["kubectl", "--kubeconfig"]).arg(kubernetes.kubeconfig());
        command.args(["port-forward", "--namespace", namespace, "--address", host, &format!("pod/{pod}")]);
        command.arg(format!("{local}:{port}")).env("HOME", sandbox.directory());
        let leash = Leash::start(&command, &log, &log).context("start kubectl port-forward")?;
        wait::until("kubectl to forward", wait::LIMIT, async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Some(exit) = leash.exit() {
                bail!("kubectl port-forward ended with {exit:?}: {said}");
            }
            Ok(said.contains("Forwarding from").then_some(()))
        })
        .await?;
        Ok(Self { address, _leash: leash })
    }

    /// `HOST:PORT` to connect to.
    pub fn address(&self) -> &str {
        &self.address
    }
}
