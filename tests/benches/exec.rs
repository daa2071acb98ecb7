//! StartLoad of a sidecar in a pod, against an exec into the same container, on a real node: what the way
//! through gRPC saves that who starts loads by `kubectl exec` takes.

mod cpu;
mod pod;

use crate::document::Section;
use crate::{Bench, plot};
use anyhow::{Context, Result};
use cpu::CpuGroup;
use pod::Target;
use preload_tests::stats::{Spread, milliseconds, number, percentile};
use preload_tests::{Nodes, NodesOptions};
use std::time::{Duration, Instant};

/// Between two sides, for what the one before has left to do.
const REST: Duration = Duration::from_millis(500);
/// In each round, to see what the cluster takes that nobody asks.
const IDLE: Duration = Duration::from_secs(3);
const WARM_UP: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Same,
    New,
    Connection,
    Preloadctl,
    Exec,
    KubectlExec,
    /// A kubectl that asks nobody.
    Kubectl,
}

/// In the order of the document.
const SIDES: [Side; 7] =
    [Side::Same, Side::New, Side::Connection, Side::Preloadctl, Side::Exec, Side::KubectlExec, Side::Kubectl];

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "StartLoad, no-op",
            Self::New => "StartLoad, new load",
            Self::Connection => "StartLoad, no-op, new connection",
            Self::Preloadctl => "preloadctl start, no-op",
            Self::Exec => "exec by a running client",
            Self::KubectlExec => "kubectl exec",
            Self::Kubectl => "kubectl version --client",
        }
    }

    fn is_ours(self) -> bool {
        !matches!(self, Self::Exec | Self::KubectlExec | Self::Kubectl)
    }

    /// In a round.
    fn calls(self) -> usize {
        match self {
            Self::Same => 100,
            Self::New | Self::Connection => 50,
            _ => 25,
        }
    }
}

/// What one side took.
#[derive(Debug, Default)]
struct Found {
    rounds: Vec<Vec<Duration>>,
    /// Of all processes for one call, in ms, a figure for each round.
    cpu: Vec<f64>,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    // Before anything is started that it counts.
    let cpu = CpuGroup::enter()?;
    bench.say("exec: starting a node");
    let nodes = Nodes::start(NodesOptions { nodes: 1, ..NodesOptions::default() }).await?;
    let section = measure(bench, &nodes, &cpu).await?;
    nodes.stop()?;
    Ok(section)
}

async fn measure(bench: &Bench, nodes: &Nodes, cpu: &CpuGroup) -> Result<Section> {
    let group = nodes.all().first().context("there is no node")?.machine().group();
    let target = Target::start(nodes).await?;
    for side in SIDES {
        target.calls(side, WARM_UP).await?;
    }
    let mut found: [Found; SIDES.len()] = Default::default();
    let rounds = bench.size(10, 1);
    let mut idle = Vec::new();
    for round in 1..=rounds {
        bench.say(&format!("exec: round {round} of {rounds}"));
        let before = cpu.used(group)?;
        tokio::time::sleep(IDLE).await;
        // Seconds of CPU time in a second.
        let at_rest = cpu.used(group)?.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
        idle.push(at_rest);
        let mut order: Vec<_> = SIDES.into_iter().zip(&mut found).collect();
        // Who comes first changes, as a later one finds a warmer machine.
        if round % 2 == 0 {
            order.reverse();
        }
        for (side, found) in order {
            let calls = bench.size(side.calls(), 3);
            let (begun, before) = (Instant::now(), cpu.used(group)?);
            found.rounds.push(target.calls(side, calls).await?);
            // What comes after the answer counts too.
            tokio::time::sleep(REST).await;
            let used = cpu.used(group)?.saturating_sub(before).as_secs_f64();
            let own = used - at_rest * begun.elapsed().as_secs_f64();
            found.cpu.push(own.max(0.0) * 1e3 / calls as f64);
        }
    }
    Ok(report(&found, &target.versions().await?, Spread::of(idle)))
}

fn report(found: &[Found; SIDES.len()], versions: &str, idle: Spread) -> Section {
    let mut section = Section::new("exec", "StartLoad against kubectl exec");
    section.paragraph(&format!(
        "One pod on a real node: {versions}, a network, mount and pid namespace for the control plane and one for \
         the node. Its container is a sidecar with TLS and a token from a Secret; there is no Alluxio, which \
         StartLoad never asks. {} rounds, in each all sides in turns, every second time backwards; calls one \
         after the other, after {WARM_UP} of each that do not count.",
        found[0].rounds.len()
    ));
    section.paragraph(
        "- StartLoad, no-op: the load is there already, with the same wish; over a connection that is there \
         already, from outside the node's network, through a TCP proxy of the harness.\n\
         - New load: another id each time, durable before it is answered. New connection: TCP, TLS and HTTP/2 \
         for each call.\n\
         - preloadctl start: a process and a connection for each call, in the network of the control plane, no-op.\n\
         - kubectl exec: a process for each call in the same network, of `/preload-sidecar --version` in the same \
         container, which is less than a start of a load by hand would do. `kubectl version --client` tells what \
         kubectl takes that asks nobody.\n\
         - exec by a running client: the same command through the same API server, by a process that runs already; \
         a connection (WebSocket) for each call, as the protocol wants it.",
    );
    section.paragraph(&format!(
        "CPU is that of all processes together: client, control plane, kubelet, containerd and what they start, \
         pod, and harness, without what they take at rest ({} ms in a second); what comes within {} ms after the \
         last answer counts. The sidecar is the static one of `make static`, which is not optimised; preloadctl \
         and the callers are.",
        Spread { median: idle.median * 1e3, least: idle.least * 1e3, most: idle.most * 1e3 },
        REST.as_millis(),
    ));
    let mut all = Vec::new();
    let mut rows = Vec::new();
    for (side, found) in SIDES.iter().zip(found) {
        let rounds: Vec<_> = found.rounds.iter().map(|round| milliseconds(round)).collect();
        let mut times = rounds.concat();
        times.sort_by(f64::total_cmp);
        rows.push([
            side.name().to_owned(),
            times.len().to_string(),
            Spread::of(rounds.iter().map(|round| percentile(round, 50.0))).to_string(),
            number(percentile(&times, 50.0)),
            number(percentile(&times, 99.0)),
            Spread::of(found.cpu.iter().copied()).to_string(),
        ]);
        all.push(times);
    }
    section.table(
        ["", "calls", "p50 of a round, ms", "p50 of all, ms", "p99 of all, ms", "CPU for one, ms"],
        &rows,
    );
    let of = |side: Side, percent: f64| {
        let found = SIDES.iter().zip(&all).find(|(other, _)| **other == side);
        found.map(|(_, times)| percentile(times, percent)).unwrap_or_default()
    };
    let times = |percent: f64| number(of(Side::KubectlExec, percent) / of(Side::Same, percent));
    let processes = |percent: f64| number(of(Side::KubectlExec, percent) / of(Side::Preloadctl, percent));
    let clients = |percent: f64| number(of(Side::Exec, percent) / of(Side::Same, percent));
    section.paragraph(&format!(
        "`kubectl exec` takes {} times as long as StartLoad at p50, and {} times at p99; as preloadctl, \
         with a process for each call on both sides, {} and {} times; and exec by a running client {} and {} times \
         as long as StartLoad.",
        times(50.0),
        times(99.0),
        processes(50.0),
        processes(99.0),
        clients(50.0),
        clients(99.0),
    ));
    let title = "A no-op in the pod: from p50 to p99";
    let ranges: Vec<_> = SIDES
        .iter()
        .zip(&all)
        .map(|(side, times)| (side.name(), usize::from(!side.is_ours()), times.as_slice()))
        .collect();
    section.plot(title, plot::ranges(title, "ms", &ranges));
    section
}
