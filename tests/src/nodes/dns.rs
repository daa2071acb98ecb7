//! The names of Services and pods: CoreDNS beside the control plane, for pods and for what runs there.

use crate::kubernetes::{Kubernetes, lan};
use crate::leash::Leash;
use crate::prerequisites;
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

/// Starts it; it answers once it has seen the API server.
pub(super) fn start(kubernetes: &Kubernetes) -> Result<Leash> {
    let directory = kubernetes.sandbox().directory();
    let kubeconfig = kubernetes.access().administrator("coredns")?;
    // A test that replaces a pod waits for its new address.
    let configuration = format!(
        ".:53 {{
  bind {}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {}
    ttl 1
  }}
}}
",
        lan::ADDRESS,
        kubeconfig.display()
    );
    let path = directory.join("Corefile");
    fs::write(&path, configuration).context("write the configuration of CoreDNS")?;
    let mut command = Command::new(prerequisites::dns()?);
    command.arg("-conf").arg(path);
    let log = directory.join("logs/coredns.log");
    let machine = kubernetes.machine().context("there is no network of nodes")?;
    machine.start(&command, &log, &log).context("start CoreDNS")
}
