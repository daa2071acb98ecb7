//! The harness of real nodes itself: a test that cannot trust it proves nothing.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use nix::sys::signal::Signal;
use preload_tests::leash::{self, Leash};
use preload_tests::nodes::{alluxio, catalogue};
use preload_tests::{
    AlluxioPods, Machine, Nodes, NodesOptions, Sandbox, cgroup, http, prerequisites, processes, shared_nodes,
    wait,
};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MEMORY: u64 = 64 << 20;

/// Two pods that say their names, on nodes of their own, with an address each and one for both.
fn web(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: web}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: both}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{namespace: {namespace}, name: web}}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: web}}}}
      containers:
        - name: web
          image: busybox:1
          command: [sh, -c, 'while true; do printf "HTTP/1.0 200 OK\r\n\r\n$(hostname)" | nc -l -p 8080; done']
          resources: {{limits: {{memory: {MEMORY}}}}}
"#
    )
}

async fn pods(nodes: &Nodes, namespace: &str) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(nodes.kubernetes().client().await?, namespace);
    Ok(pods.list(&ListParams::default()).await.context("list pods")?.items)
}

/// `wget` in the pod or, without one, beside the control plane, until it works: nc serves one at a time.
async fn fetch(nodes: &Nodes, namespace: &str, pod: Option<&str>, url: &str) -> Result<String> {
    wait::until(&format!("an answer of {url}"), wait::LIMIT, async || {
        let wget = ["wget", "-q", "-O", "-", url];
        let output = match pod {
            Some(pod) => {
                let exec = ["exec", "--namespace", namespace, pod, "--"];
                nodes.kubernetes().kubectl(&[&exec[..], &wget].concat()).await?
            }
            None => nodes.run(Command::new(prerequisites::busybox()?).args(wget)).await?,
        };
        output.success().map(Some)
    })
    .await
}

#[tokio::test]
async fn pods_on_real_nodes_reach_each_other_and_are_reached() -> Result<()> {
    let nodes = shared_nodes().await?;
    let kubernetes = nodes.kubernetes();
    let namespace = &kubernetes.namespace("web", &[]).await?;
    kubernetes.apply(&web(namespace)).await?;
    let rollout = ["rollout", "status", "--timeout=60s", "--namespace", namespace, "statefulset", "web"];
    kubernetes.kubectl(&rollout).await?.success()?;
    let pods = pods(nodes, namespace).await?;
    let hosts = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref());
    assert_eq!(hosts.collect::<BTreeSet<_>>(), BTreeSet::from(["node-1", "node-2"]));

    assert_eq!(fetch(nodes, namespace, Some("web-0"), "http://web-1.web:8080").await?, "web-1");
    let mut said = BTreeSet::new();
    wait::until("both pods to answer behind one address", wait::LIMIT, async || {
        said.insert(fetch(nodes, namespace, Some("web-0"), "http://both").await?);
        ensure!(said.len() == 2, "only {said:?}");
        Ok(Some(()))
    })
    .await?;
    let url = format!("http://web-0.web.{namespace}.svc.cluster.local:8080");
    assert_eq!(fetch(nodes, namespace, None, &url).await?, "web-0");
    let address =
        pods[1].status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("no address")?;
    let forward = nodes.forward(&format!("{address}:8080"))?;
    let (status, body) = wait::until("an answer through a forward", wait::LIMIT, async || {
        http::get(forward.address(), "/").await.map(Some)
    })
    .await?;
    assert_eq!((status, body.as_str()), (200, "web-1"));

    let audit = kubernetes.audit()?;
    assert!(audit.iter().any(|event| event.user == "system:node:node-1" && event.verb == "create"));
    Ok(())
}

#[tokio::test]
async fn a_container_is_looked_at_and_killed() -> Result<()> {
    let nodes = shared_nodes().await?;
    let kubernetes = nodes.kubernetes();
    let namespace = &kubernetes.namespace("killed", &[]).await?;
    kubernetes.apply(&web(namespace)).await?;
    let web = async || {
        let found = wait::until("the container to run", wait::LIMIT, async || {
            nodes.container(namespace, "web-0", "web").await.map(Some)
        });
        found.await
    };
    let before = web().await?;
    let pids = before.pids()?;
    let all = processes::all();
    assert!(
        all.iter().any(|process| pids.contains(&process.pid) && process.command.contains("nc -l -p 8080"))
    );
    let memory = before.memory()?;
    assert_eq!(memory.limit, MEMORY);
    assert!(0 < memory.used && memory.used <= memory.peak && memory.peak <= MEMORY, "{memory:?}");

    before.kill(Signal::SIGKILL).await?;
    wait::until("another container", wait::LIMIT, async || {
        Ok((web().await?.id() != before.id()).then_some(()))
    })
    .await?;
    let pods = pods(nodes, namespace).await?;
    let statuses = pods[0].status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let status = &statuses.context("no status")?[0];
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()).context("no end")?;
    assert_eq!((status.restart_count, last.exit_code), (1, 137));
    Ok(())
}

#[tokio::test]
async fn the_image_holds_what_ships() -> Result<()> {
    let nodes = shared_nodes().await?;
    let kubernetes = nodes.kubernetes();
    let labels = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = &kubernetes.namespace("image", &labels).await?;
    let image = catalogue::PRELOAD;
    let names = ["preload-controller", "preload-sidecar", "preloadctl"];
    let container = |name: &&str| {
        format!(
            "    - name: {name}
      image: {image}
      command: [/{name}, --version]
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"
        )
    };
    let containers: String = names.iter().map(container).collect();
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: versions}}
spec:
  restartPolicy: Never
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
{containers}"
    );
    kubernetes.apply(&pod).await?;
    let done = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod/versions"];
    kubernetes.kubectl(&[&done[..], &["--namespace", namespace]].concat()).await?.success()?;
    for name in names {
        let logs = ["logs", "--namespace", namespace, "versions", "--container", name];
        let said = kubernetes.kubectl(&logs).await?.success()?;
        assert_eq!(said.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    }
    Ok(())
}

#[tokio::test]
async fn the_example_is_a_real_alluxio_with_two_workers() -> Result<()> {
    let nodes = shared_nodes().await?;
    let alluxio = AlluxioPods::start(nodes).await?;
    assert_eq!(alluxio.live_workers().await?, 2);
    let data = alluxio.data("pods")?;
    data.files(2, 100_000)?;
    let listed = alluxio.alluxio(&["fs", "ls", data.path()]).await?.success()?;
    assert_eq!(
        listed.lines().filter(|line| line.contains("100000") && line.contains("  0% ")).count(),
        2,
        "{listed}"
    );
    let load = ["fs", "distributedLoad", "--replication", "2", data.path()];
    let said = alluxio.alluxio(&load).await?.success()?;
    assert!(said.contains("Total completed file count is 2, failed file count is 0"), "{said}");
    let listed = alluxio.alluxio(&["fs", "ls", data.path()]).await?.success()?;
    assert_eq!(listed.lines().filter(|line| line.contains("100% ")).count(), 2, "{listed}");

    let workers = pods(nodes, alluxio::NAMESPACE).await?;
    let workers = workers.iter().filter(|pod| pod.metadata.name.as_deref() != Some(alluxio::MASTER));
    let hosts: BTreeSet<_> = workers.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    assert_eq!(hosts.len(), 2, "each worker has a node of its own");
    Ok(())
}

/// What has the name of a sandbox: processes, control groups, mounts, the directory itself.
fn left_of(directory: &Path) -> Vec<String> {
    let mut left: Vec<_> = processes::naming(directory).into_iter().map(|process| process.command).collect();
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    for machine in ["lan", "node-1", "node-2"] {
        left.extend(
            cgroup::find(&format!("{name}-{machine}")).iter().map(|group| group.display().to_string()),
        );
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|mount| mount.contains(&*name)).map(str::to_owned));
    left.extend(directory.exists().then(|| directory.display().to_string()));
    left
}

#[tokio::test]
async fn nothing_is_left_of_nodes_that_were_stopped() -> Result<()> {
    let nodes = Nodes::start(NodesOptions { nodes: 1, preload: false }).await?;
    let directory = nodes.kubernetes().sandbox().directory().to_owned();
    assert!(!left_of(&directory).is_empty());
    nodes.stop()?;
    assert_eq!(left_of(&directory), Vec::<String>::new());
    Ok(())
}

/// What a developer does who loses patience: SIGKILL to the process that started them.
#[tokio::test]
async fn nothing_outlives_a_killed_process_with_nodes() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let log = sandbox.directory().join("log");
    let mut command = Command::new(leash::sibling("preload-test-nodes")?);
    let victim = Leash::start(command.arg("1"), &log, &log)?;
    let said = |name: &str| -> Result<Option<String>> {
        let text = fs::read_to_string(&log)?;
        let complete = text.contains("ends with").then_some(text).context("it still starts")?;
        Ok(complete.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned))
    };
    let directory =
        wait::until("the victim's nodes", Duration::from_secs(300), async || said("directory: ")).await?;
    let directory = PathBuf::from(directory);
    let kubectl = said("kubectl: ")?.context("no kubectl")?;
    let run = format!("{kubectl} run sleeper --image=busybox:1 --image-pull-policy=Never -- sleep 1234567");
    sandbox.run(Command::new("sh").args(["-c", &run]), wait::LIMIT).await?.success()?;
    let sleepers =
        || processes::all().into_iter().filter(|process| process.command == "sleep 1234567").count();
    wait::until("a pod of the victim", wait::LIMIT, async || Ok((sleepers() == 1).then_some(()))).await?;

    // Our own leash holds the victim's orphans now, but kills them only when it is dropped, after this.
    victim.signal(Signal::SIGKILL)?;
    victim.exited(wait::LIMIT).await?;
    wait::until("the end of the victim's nodes", wait::LIMIT, async || {
        let left = left_of(&directory);
        ensure!(left.is_empty(), "left: {left:?}");
        ensure!(sleepers() == 0, "its pod still runs");
        Ok(Some(()))
    })
    .await
}

/// A run whose leashes were killed too: its processes are gone, its control groups and files are not.
#[tokio::test]
async fn left_overs_of_a_killed_run_go_with_the_next() -> Result<()> {
    let unique = format!("{}left-{}", cgroup::PREFIX, std::process::id());
    let groups: Vec<PathBuf> = {
        let claim = cgroup::Cgroup::claim(&unique)?;
        let groups = cgroup::find(&unique);
        fs::create_dir(groups[0].join("below")).context("make a group below")?;
        drop(claim);
        groups
    };
    let directory = std::env::temp_dir().join(&unique);
    fs::create_dir(&directory).context("make a directory")?;
    fs::write(directory.join("file"), "").context("write a file")?;
    // As old as one of a run that ended.
    let hour = std::time::SystemTime::now() - Duration::from_secs(3600);
    File::open(&directory)?.set_modified(hour).context("make it old")?;

    let sandbox = Sandbox::new()?;
    let machine = Machine::new(&sandbox, "next")?;
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    assert!(!directory.exists());
    let own = cgroup::find(machine.group());
    assert!(!own.is_empty());
    // One that is in use stays.
    let other = Machine::new(&sandbox, "other")?;
    assert_eq!(cgroup::find(machine.group()), own);
    drop(other);
    Ok(())
}
