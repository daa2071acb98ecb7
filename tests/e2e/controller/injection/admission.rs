//! Pods that are created while the webhook is registered.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use nix::sys::signal::Signal;
use preload_tests::{Exit, http};
use serde_json::json;

use super::world::{IMAGE, OPTED_IN, World, container, modest_master, names, port};

/// A master as Fluid makes it gets all of it, and keeps all of its own.
#[tokio::test]
async fn a_master_of_fluid_gets_the_sidecar() -> Result<()> {
    let world = World::new("inject").await?;
    let before = world.master("hbase").await?;
    let after = world.create(before.clone()).await?;
    ensure!(names(&after, "initContainers") == ["journal-format", "preload-install", "preload-sidecar"]);
    ensure!(names(&after, "containers") == ["alluxio-master", "alluxio-job-master"]);
    let (sidecar, master) = (container(&after, "preload-sidecar")?, container(&after, "alluxio-master")?);
    ensure!(sidecar["image"] == master["image"] && container(&after, "preload-install")?["image"] == IMAGE);
    ensure!(sidecar["restartPolicy"] == "Always" && sidecar["envFrom"] == master["envFrom"], "{sidecar}");
    let grpc = port(&after)?;
    ensure!((27000..28000).contains(&grpc) && grpc % 2 == 0, "{grpc}");
    ensure!(
        sidecar["ports"][0]["hostPort"] == grpc && sidecar["ports"][1]["hostPort"] == grpc + 1,
        "{sidecar}"
    );
    // The API server goes through its own admission again after a webhook: it must not give the sidecar a token.
    for name in ["preload-install", "preload-sidecar"] {
        let mounts = container(&after, name)?["volumeMounts"].to_string();
        ensure!(mounts.contains("preload-no-token") && !mounts.contains("kube-api-access"), "{mounts}");
    }
    let mounts = master["volumeMounts"].to_string();
    ensure!(mounts.contains("kube-api-access") && !mounts.contains("preload-"), "{mounts}");
    let secret = after["spec"]["volumes"].as_array().into_iter().flatten();
    let secret =
        secret.into_iter().find(|volume| volume["name"] == "preload-credentials").context("volume")?;
    ensure!(secret["secret"]["secretName"] == "hbase-master-preload" && secret["secret"]["optional"] == true);
    // What is there already, such as by a template that was injected by hand, is left alone.
    world.delete("hbase-master-0").await?;
    let mut again = after.clone();
    again["metadata"] = json!({
        "name": "again", "labels": after["metadata"]["labels"], "annotations": after["metadata"]["annotations"],
    });
    let unchanged = world.create(again).await?;
    ensure!(unchanged["spec"] == after["spec"], "{}", unchanged["spec"]);

    let (_, metrics) = http::get(world.controller.admin_address(), "/metrics").await?;
    let counted = |result: &str| {
        let line = format!("preload_controller_injections_total{{result=\"{result}\"}} ");
        metrics.lines().any(|l| l.strip_prefix(&line).is_some_and(|n| n != "0"))
    };
    ensure!(counted("injected") && counted("unchanged") && !counted("failed"), "{metrics}");
    world.controller.assert_no_errors()
}

/// Twenty at once on hosts' networks: no two have a port in common, and who comes again gets his own.
#[tokio::test]
async fn masters_on_the_host_network_share_no_port() -> Result<()> {
    let world = World::new("ports").await?;
    let master = world.master("hbase").await?;
    let create = async |number: usize| {
        let mut pod = master.clone();
        pod["metadata"]["name"] = json!(format!("many-{number}"));
        port(&world.create(pod).await?)
    };
    let mut ports = Vec::new();
    for ten in [0..10, 10..20] {
        ports.extend(futures_util::future::try_join_all(ten.map(create)).await?);
    }
    let mut unique = ports.clone();
    unique.sort_unstable();
    unique.dedup();
    ensure!(unique.len() == 20, "{ports:?}");
    world.delete("many-7").await?;
    ensure!(create(7).await? == ports[7], "another port than {}", ports[7]);
    world.controller.assert_no_errors()
}

/// A range of two pairs: the third master is admitted as it is, and whoever creates it is warned.
#[tokio::test]
async fn an_exhausted_range_leaves_masters_alone() -> Result<()> {
    let world = World::with("range", &[], &["--host-ports=27000-27003"]).await?;
    let master = world.master("hbase").await?;
    for (number, expected) in [(1, true), (2, true), (3, false)] {
        let mut pod = master.clone();
        pod["metadata"]["name"] = json!(format!("m-{number}"));
        let pod = world.create(pod).await?;
        ensure!(names(&pod, "initContainers").len() == if expected { 3 } else { 1 }, "{number}: {pod}");
    }
    let mut pod = master.clone();
    pod["metadata"]["name"] = json!("m-4");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    let file = world.kubernetes.sandbox().folder("range")?.join("pod.json");
    std::fs::write(&file, pod.to_string())?;
    let file = file.to_string_lossy();
    let said = world.kubernetes.kubectl(&["create", "-n", &world.namespace, "-f", &file]).await?;
    ensure!(said.exit == Exit::Code(0) && said.stderr.contains("27000-27003"), "{said:?}");
    Ok(())
}

/// Half of an injection is told, and not made worse.
#[tokio::test]
async fn half_an_injection_is_left_with_a_warning() -> Result<()> {
    let world = World::new("half").await?;
    let mut pod = world.create(modest_master("whole")).await?;
    pod["metadata"] = json!({ "name": "half", "labels": pod["metadata"]["labels"] });
    let half =
        pod.pointer_mut("/spec/initContainers").and_then(|c| c.as_array_mut()).context("containers")?;
    half.remove(0);
    let admitted = world.create(pod.clone()).await?;
    ensure!(names(&admitted, "initContainers") == ["preload-sidecar"], "{admitted}");
    ensure!(world.controller.log().contains("container preload-install"), "it is not in the log");
    Ok(())
}

/// Who never gets one: whatever is no master, has opted out, or is in a namespace that has not opted in.
#[tokio::test]
async fn others_never_get_it() -> Result<()> {
    let world = World::new("others").await?;
    let changed = |name: &str, change: fn(&mut serde_json::Value)| {
        let mut pod = modest_master(name);
        change(&mut pod);
        pod
    };
    for pod in [
        changed("worker", |pod| pod["metadata"]["labels"]["role"] = json!("alluxio-worker")),
        changed("nothing", |pod| pod["metadata"]["labels"] = json!({})),
        changed("label", |pod| pod["metadata"]["labels"]["preload.dev/inject"] = json!("false")),
        changed("annotation", |pod| {
            pod["metadata"]["annotations"] = json!({ "preload.dev/inject": "false" })
        }),
        changed("job", |pod| pod["spec"]["restartPolicy"] = json!("Never")),
    ] {
        let admitted = world.create(pod).await?;
        ensure!(!admitted.to_string().contains("preload-"), "{admitted}");
    }
    let client = world.kubernetes.client().await?;
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client);
    let unlabelled = json!({ "metadata": { "labels": { OPTED_IN.0: null } } });
    namespaces
        .patch(&world.namespace, &Default::default(), &kube::api::Patch::Merge(unlabelled))
        .await
        .context("take the label away")?;
    let admitted = world.create(modest_master("elsewhere")).await?;
    ensure!(!admitted.to_string().contains("preload-"), "{admitted}");
    world.controller.assert_no_errors()
}

/// A dry run shows the sidecar and leaves nothing behind.
#[tokio::test]
async fn a_dry_run_leaves_nothing() -> Result<()> {
    let world = World::new("dry").await?;
    let pod = serde_json::from_value(world.master("hbase").await?)?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let shown = serde_json::to_value(world.pods().await?.create(&dry_run, &pod).await?)?;
    container(&shown, "preload-sidecar")?;
    let secrets: Api<Secret> = Api::namespaced(world.kubernetes.client().await?, &world.namespace);
    let left = secrets.list(&ListParams::default().fields("type=preload.dev/credentials")).await?.items;
    ensure!(left.is_empty(), "{left:?}");
    // Its port was not taken: the real one gets it.
    let created = world.create(serde_json::to_value(&pod)?).await?;
    ensure!(port(&created)? == port(&shown)?);
    Ok(())
}

/// The controller is down: masters are created as ever.
#[tokio::test]
async fn it_fails_open() -> Result<()> {
    let mut world = World::new("open").await?;
    world.controller.end(Signal::SIGKILL).await?;
    let admitted = world.create(modest_master("down")).await?;
    ensure!(!admitted.to_string().contains("preload-"), "{admitted}");
    world.controller.restart().await?;
    world.registration.works(world.kubernetes).await?;
    container(&world.create(modest_master("up")).await?, "preload-sidecar").map(drop)
}

/// After the signal to end it goes on for as long as somebody may ask it.
#[tokio::test]
async fn an_orderly_end_misses_nobody() -> Result<()> {
    let mut world = World::new("end").await?;
    world.controller.signal(Signal::SIGTERM)?;
    world.controller.says("stopping").await?;
    container(&world.create(modest_master("late")).await?, "preload-sidecar")?;
    let exit = world.controller.ended().await?;
    ensure!(exit == Exit::Code(0), "{exit:?}: {}", world.controller.log_end());
    world.controller.assert_no_errors()
}

/// Nothing of ours keeps a master out of a namespace that takes it: `restricted` judges every container.
#[tokio::test]
async fn pod_security() -> Result<()> {
    let enforce = "pod-security.kubernetes.io/enforce";
    let restricted = World::with("restricted", &[(enforce, "restricted")], &[]).await?;
    container(&restricted.create(modest_master("m")).await?, "preload-sidecar")?;

    let baseline = World::with("baseline", &[(enforce, "baseline")], &["--native-sidecar=never"]).await?;
    // What of Fluid's master `baseline` forbids: the host's network and files.
    let mut pod = baseline.master("hbase").await?;
    pod["spec"]["hostNetwork"] = json!(false);
    let spec = pod["spec"].as_object_mut().context("a spec")?;
    spec.insert("dnsPolicy".to_owned(), json!("ClusterFirst"));
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        container["volumeMounts"] = json!([]);
        container["ports"] = json!([]);
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if volume["hostPath"].is_object() {
            *volume = json!({ "name": volume["name"], "emptyDir": {} });
        }
    }
    let pod = baseline.create(pod).await?;
    ensure!(
        names(&pod, "containers") == ["alluxio-master", "alluxio-job-master", "preload-sidecar"],
        "{pod}"
    );
    ensure!(port(&pod)? == 29700);
    Ok(())
}
