//! A real Kubernetes cluster with two real nodes to play with: says where it is, and lasts until this process
//! ends, in whatever way. The number of nodes may be given.

use anyhow::{Context, Result};
use preload_tests::{Nodes, NodesOptions, prerequisites};

#[tokio::main]
async fn main() -> Result<()> {
    let mut options = NodesOptions::default();
    if let Some(count) = std::env::args().nth(1) {
        options.nodes = count.parse().context("the only argument is the number of nodes")?;
    }
    let nodes = Nodes::start(options).await?;
    let kubernetes = nodes.kubernetes();
    println!("directory: {}", kubernetes.sandbox().directory().display());
    println!(
        "kubectl: {} kubectl --kubeconfig {}",
        prerequisites::kubernetes()?.display(),
        kubernetes.kubeconfig().display()
    );
    for node in nodes.all() {
        let machine = node.machine();
        println!(
            "{}: nsenter --target {} --net --mount --pid --uts  # control group {}",
            node.name(),
            machine.pid(),
            machine.group()
        );
    }
    println!("ends with Ctrl-C");
    std::future::pending().await
}
