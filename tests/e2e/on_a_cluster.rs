//! All of it on real nodes, as a user installs it: `kubectl apply -k`, and nothing by hand.
//!
//! One run from apply to Loaded, twice: with the master that was injected by hand, and with one that the webhook
//! injected. What happens when things are killed, upgraded and removed is in the target `cluster` (`make e2e`).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use preload_tests::nodes::{Installation, PortForward, alluxio};
use preload_tests::{Course, MIB, Nodes, NodesOptions, Shown, wait};

const ACCOUNT: &str = "system:serviceaccount:preload-system:preload-controller";

fn loaded(run: i64) -> impl Fn(&Shown) -> bool {
    move |shown| shown.text("/status/phase") == "Loaded" && shown.number("/status/run") == run
}

async fn master(nodes: &Nodes) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(nodes.kubernetes().client().await?, alluxio::NAMESPACE);
    pods.get(alluxio::MASTER).await.context("get the master's pod")
}

/// The sidecar is there as a native one, last of the init containers, and the pod is Ready with it.
fn assert_injected(pod: &Pod) -> Result<()> {
    let spec = pod.spec.as_ref().context("a spec")?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let names: Vec<_> = init.iter().map(|container| container.name.as_str()).collect();
    ensure!(names == ["format-journal", "preload-install", "preload-sidecar"], "{names:?}");
    ensure!(init[2].restart_policy.as_deref() == Some("Always"), "not a native sidecar");
    ensure!(init[2].image == spec.containers[0].image, "not in the master's own image");
    Ok(())
}

#[tokio::test]
async fn from_apply_to_loaded() -> Result<()> {
    let nodes = Nodes::start(NodesOptions::default()).await?;
    let installation = Installation::standalone(&nodes).await?;
    match run(&nodes, &installation).await {
        Ok(()) => Ok(()),
        Err(error) => {
            println!("{}\n{}", installation.controller_log().await, installation.alluxio().describe().await);
            Err(error)
        }
    }
}

async fn run(nodes: &Nodes, installation: &Installation<'_>) -> Result<()> {
    let kubernetes = nodes.kubernetes();
    let alluxio = installation.alluxio();
    let data = alluxio.data_at("imagenet")?;
    data.files(48, MIB)?;
    installation.controller_ready().await?;
    alluxio.ready().await?;
    assert_injected(&master(nodes).await?)?;

    let client = kubernetes.client().await?;
    let (preloads, runtimes) = tokio::try_join!(
        Course::of_preloads(&client, alluxio::NAMESPACE),
        Course::of_runtimes(&client, alluxio::NAMESPACE)
    )?;
    kubernetes.apply(include_str!("../../deploy/examples/alluxioruntime.yaml")).await?;
    // What people look at meanwhile.
    preloads.until("alluxio", |shown| shown.text("/status/phase") == "Loading").await?;
    let table = kubernetes.kubectl(&["get", "preloads", "-n", alluxio::NAMESPACE]).await?.success()?;
    ensure!(["PHASE", "PERCENT", "ETA", "/imagenet"].iter().all(|word| table.contains(word)), "{table}");
    preloads.until("alluxio", loaded(1)).await?;
    runtimes.until("alluxio", |shown| shown.text("/status/preloadStatus") == "Loaded").await?;
    let course = runtimes.values("alluxio", "/status/preloadStatus");
    ensure!(course == ["", "NotStarted", "DisLoading", "Loaded"], "{course:?}");
    everything_is_cached(&alluxio).await?;

    by_grpcurl(nodes).await?;

    // As Fluid makes its masters, after the controller: by a plain template. The one before is gone, with its map
    // of the cache, so that all is loaded anew.
    let delete = ["delete", "statefulset", "alluxio-master", "-n", alluxio::NAMESPACE, "--timeout=100s"];
    kubernetes.kubectl(&delete).await?.success()?;
    preloads.until("alluxio", |shown| shown.text("/status/phase") == "Pending").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), alluxio::NAMESPACE);
    wait::until("the old master to be gone", wait::LIMIT, async || {
        Ok(pods.get_opt(alluxio::MASTER).await?.is_none().then_some(()))
    })
    .await?;
    installation.apply_file("alluxio-master.yaml", &[]).await?;
    preloads.until("alluxio", loaded(2)).await?;
    assert_injected(&master(nodes).await?)?;
    everything_is_cached(&alluxio).await?;

    // Under its role, which has been enough, and never by exec.
    let audit = kubernetes.audit()?;
    let ours: Vec<_> = audit.iter().filter(|event| event.user == ACCOUNT).collect();
    ensure!(!ours.is_empty(), "the controller never called");
    let refused: Vec<_> = ours.iter().filter(|event| event.code == 403 || event.code == 401).collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    ensure!(ours.iter().all(|event| event.subresource != "exec"), "exec");
    Ok(())
}

async fn everything_is_cached(alluxio: &preload_tests::AlluxioPods<'_>) -> Result<()> {
    let listed = alluxio.alluxio(&["fs", "ls", "-R", "/imagenet"]).await?.success()?;
    let files: Vec<_> = listed.lines().filter(|line| line.contains('%')).collect();
    ensure!(files.len() == 48 && files.iter().all(|line| line.contains("100%")), "{listed}");
    Ok(())
}

/// A user without any program of ours, through `kubectl port-forward`, with the credentials of the Secret.
async fn by_grpcurl(nodes: &Nodes) -> Result<()> {
    let kubernetes = nodes.kubernetes();
    let secret = |key: &str| {
        let path = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        async move {
            let get = ["get", "secret", "-n", alluxio::NAMESPACE, "alluxio-master-preload", "-o", &path];
            kubernetes.kubectl(&get).await?.success()
        }
    };
    let ca = kubernetes.sandbox().directory().join("sidecar-ca.crt");
    std::fs::write(&ca, secret("ca.crt").await?)?;
    let tokens = secret("tokens").await?;
    let token = format!("authorization: Bearer {}", tokens.lines().next().context("a token")?);
    let forward = PortForward::start(nodes, alluxio::NAMESPACE, alluxio::MASTER, 29700).await?;
    let ca = ca.to_string_lossy();
    let name = format!("alluxio-master.{}.preload.dev", alluxio::NAMESPACE);
    let call = |header: Option<&str>| {
        let mut arguments: Vec<String> = ["-cacert", &ca, "-servername", &name].map(str::to_owned).into();
        if let Some(header) = header {
            arguments.extend(["-H".to_owned(), header.to_owned()]);
        }
        arguments.extend([forward.address().to_owned(), "preload.v1.PreloadService/ListLoads".to_owned()]);
        let sandbox = kubernetes.sandbox();
        async move { preload_tests::grpcurl(sandbox, &arguments).await }
    };
    let answer = call(Some(&token)).await?.success()?;
    ensure!(answer.contains("\"LOADED\"") && answer.contains("/imagenet"), "{answer}");
    let refused = call(None).await?;
    ensure!(refused.stderr.contains("Unauthenticated"), "{}", refused.stderr);
    let words: BTreeSet<_> = tokens.lines().collect();
    ensure!(words.len() == 3, "three tokens, each another");
    Ok(())
}
