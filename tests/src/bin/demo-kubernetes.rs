//! `make demo-kubernetes`: from `kubectl apply` of an AlluxioRuntime to Loaded, with the real API server, the real
//! controller, the real sidecar and a real Alluxio. There are no nodes: what Fluid and the kubelet report is
//! written for them.

use anyhow::{Context, Result};
use preload_tests::{
    Cluster, ControllerSetup, Course, Crds, Fluid, Kubernetes, KubernetesOptions, MIB, Options, Setup, crds,
};
use serde_json::json;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

const NAME: &str = "hbase";
const WORKERS: i32 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let result = tokio::select! {
        result = demo() => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    println!("starting etcd, kube-apiserver, and Alluxio with two workers ...");
    // One file at a time for each job worker, so that there is something to watch.
    let properties = vec![("alluxio.job.worker.threadpool.size".to_owned(), "1".to_owned())];
    let options = Options { worker_quota: 1024 * MIB, properties, ..Options::default() };
    let (kubernetes, alluxio) = tokio::try_join!(
        Kubernetes::start(KubernetesOptions { controller_manager: true }),
        Cluster::start(options)
    )?;
    crds::install(&kubernetes, Crds::PatchedFluid).await?;
    let namespace = kubernetes.namespace("training", &[("preload.dev/enabled", "true")]).await?;
    let data = alluxio.data("imagenet")?;
    data.files(400, MIB / 2)?;
    let sidecar = Setup::new(&alluxio).quiet().start().await?;
    let setup = ControllerSetup::new(&kubernetes, &namespace).all_namespaces();
    let _controller = setup.quiet().start(&kubernetes).await?;
    println!("preload-controller leads; the sidecar listens on {}", sidecar.address());
    println!("kubeconfig for a second terminal: {}\n", kubernetes.kubeconfig().display());

    let manifest = json!({
        "apiVersion": "data.fluid.io/v1alpha1",
        "kind": "AlluxioRuntime",
        "metadata": { "name": NAME, "namespace": namespace },
        "spec": {
            "replicas": WORKERS,
            "data": { "replicas": 1, "preload": { "enabled": true, "path": data.path() } },
        },
    });
    println!("$ kubectl apply -f alluxioruntime.yaml      # spec.data.preload.path: {}", data.path());
    let course = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    kubernetes.apply(&manifest.to_string()).await?;
    let fluid = Fluid::new(&kubernetes, &namespace, NAME).await?;
    let watching = async {
        println!("the Preload that the controller makes, as the API server shows it:");
        let mut shown = String::new();
        let mut seen = 0;
        loop {
            let states = course.of(NAME);
            for state in &states[seen..] {
                let number = |pointer: &str| state.object.pointer(pointer).map(ToString::to_string);
                let line = format!(
                    "{:8} {:8} {:>5} {:10} {}",
                    NAME,
                    state.text("/status/phase"),
                    number("/status/progress/percent").map(|p| p + "%").unwrap_or_default(),
                    state.text("/status/progress/eta"),
                    state.text("/status/message")
                );
                if line != shown && !state.text("/status/phase").is_empty() {
                    println!("{line}");
                    shown = line;
                }
                if matches!(state.text("/status/phase"), "Loaded" | "Failed") {
                    return;
                }
            }
            seen = states.len();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let reporting = async {
        // Fluid and the kubelet take a moment for each step.
        course.until(NAME, |shown| !shown.text("/status/message").is_empty()).await?;
        fluid.create_master_pod(sidecar.address(), true).await?;
        fluid.report("Ready", "PartialReady", 1, WORKERS).await?;
        course.until(NAME, |shown| shown.condition("WorkersReady").1 == "PartialReady").await?;
        fluid.report_ready(WORKERS).await
    };
    tokio::try_join!(reporting, async {
        watching.await;
        anyhow::Ok(())
    })?;
    alluxio.oracle().assert_loaded(data.path(), 1).await.context("look at the workers' disks")?;
    println!("\nevery block is on the workers' disks, and equals the under file system byte for byte\n");
    for arguments in [
        vec!["get", "alluxioruntimes"],
        vec!["get", "pl", "-o", "wide"],
        vec![
            "get",
            "pl",
            NAME,
            "-o",
            "jsonpath={range .status.conditions[*]}{.type}={.status} ({.reason}) {end}",
        ],
        vec!["get", "events.events.k8s.io"],
    ] {
        println!("$ kubectl {}", arguments.join(" "));
        let arguments = [&arguments[..], &["--namespace", &namespace]].concat();
        println!("{}", kubernetes.kubectl(&arguments).await?.success()?.trim_end());
        println!();
    }
    Ok(())
}

async fn interrupted() {
    // A process that cannot hear signals is ended by them, as by default.
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
}
