//! What the controller may do, does, and shows to whom.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{ByteString, api::core::v1::Pod};
use kube::api::{Api, PostParams};
use nix::sys::signal::Signal;
use preload_tests::{
    AuditEvent, Authority, ControllerSetup, Course, Fluid, Kubernetes, MIB, Registration, SecretVolume,
    Setup, shared, shared_fluid, wait,
};
use serde_json::{Value, json};

use super::world::{NAME, WORKERS, spec};

const ACCOUNT: &str = "preload-controller";
pub(super) const SYSTEM: &str = "preload-system";
const IMAGE: &str = "alluxio-preload:of-our-own-pod";

/// Applies what `deploy/base` says of the controller's rights, and takes the ServiceAccount of it.
pub(super) async fn account(kubernetes: &Kubernetes) -> Result<std::path::PathBuf> {
    for file in ["namespace", "rbac", "policy"] {
        let path = format!("{}/../deploy/base/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        kubernetes.apply(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?).await?;
    }
    kubernetes.service_account_kubeconfig(SYSTEM, ACCOUNT).await
}

/// Everything that a controller does in its life, with the role of the manifests only: nothing is refused, and
/// nothing is granted that is never used.
#[tokio::test]
async fn the_role_is_exactly_what_is_used() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("role", &[("preload.dev/enabled", "true")]).await?;
    let kubeconfig = account(kubernetes).await?;
    let preloads = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    let client = kubernetes.client().await?;
    let secret = format!("{NAME}-master-preload");
    let volume = SecretVolume::mount(kubernetes.sandbox(), &client, &namespace, &secret)?;
    let sidecar = Setup::new(alluxio).argument("--credentials").argument(volume.directory()).spawn()?;
    let data = alluxio.data("role")?;
    data.files(2, MIB)?;
    // The webhook as it is shipped, though without nodes its Service leads nowhere; and a pod to be in.
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/webhook.yaml");
    kubernetes.apply(&fs::read_to_string(shipped).context("read webhook.yaml")?).await?;
    let own = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": ACCOUNT, "namespace": SYSTEM },
        "spec": {
            "containers": [{
                "name": "controller",
                "image": IMAGE,
                // The namespace is restricted.
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "automountServiceAccountToken": false,
        },
    });
    let setup = ControllerSetup::new(kubernetes, SYSTEM).kubeconfig(&kubeconfig).all_namespaces();
    let setup = setup.managed_credentials().argument("--rotate-credentials=5s");
    let setup = setup.webhook().argument("--webhook-configuration=preload-controller");
    let setup = setup.variable("POD_NAME", ACCOUNT).variable("POD_NAMESPACE", SYSTEM);
    let mut controller = setup.start(kubernetes).await?;
    wait::until("the namespace's default ServiceAccount", wait::LIMIT, async || {
        kubernetes.apply(&own.to_string()).await.map(Some)
    })
    .await?;
    let registration = Registration::of(&namespace);
    let bundle = wait::until("the caBundle of what is shipped", wait::LIMIT, async || {
        let webhook = ["get", "mutatingwebhookconfiguration", "preload-controller", "-o"];
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let bundle = kubernetes.kubectl(&[&webhook[..], &[path]].concat()).await?.success()?;
        let bundle: ByteString = serde_json::from_value(json!(bundle))?;
        Ok(Some(String::from_utf8(bundle.0)?).filter(|bundle| !bundle.is_empty()))
    })
    .await?;
    registration.create(kubernetes, controller.webhook_address()?, Some(&bundle)).await?;
    registration.works(kubernetes).await?;
    let admitted = Api::<Pod>::namespaced(kubernetes.client().await?, &namespace);
    let master = json!({
        "metadata": { "name": "injected", "labels": { "role": "alluxio-master" } },
        "spec": { "hostNetwork": true, "containers": [{ "name": "alluxio-master", "image": "alluxio" }] },
    });
    let admitted = admitted.create(&PostParams::default(), &serde_json::from_value(master)?).await?;
    ensure!(serde_json::to_string(&admitted)?.contains(IMAGE), "{admitted:?}");
    // What follows is about masters whose sidecars run elsewhere.
    registration.delete(kubernetes).await?;
    kubernetes.kubectl(&["delete", "mutatingwebhookconfiguration", "preload-controller"]).await?.success()?;

    let fluid = Fluid::new(kubernetes, &namespace, NAME).await?;
    fluid.create(spec(data.path(), 1), &[]).await?;
    fluid.create_injected_master_pod(sidecar.address()).await?;
    fluid.report_ready(WORKERS).await?;
    preloads.until(NAME, |shown| shown.text("/status/phase") == "Loaded").await?;
    fluid.edit(json!({ "spec": { "data": { "replicas": 2 } } })).await?;
    preloads.until(NAME, |s| s.text("/status/phase") == "Loaded" && s.number("/status/run") == 2).await?;
    // Erased spec: recorded in an annotation. A writer in the way: it is read again.
    fluid.put_typed().await?;
    let by_hand = json!({
        "apiVersion": "preload.dev/v1alpha1", "kind": "Preload",
        "metadata": { "name": "by-hand", "namespace": namespace },
        "spec": { "runtimeRef": { "name": NAME }, "path": data.path() },
    });
    kubernetes.apply(&by_hand.to_string()).await?;
    preloads.until("by-hand", |shown| shown.text("/status/phase") == "Loaded").await?;
    fluid.edit(json!({ "spec": { "data": { "preload": { "enabled": false } } } })).await?;
    preloads.until(NAME, |shown| shown.deleted).await?;
    controller.end(Signal::SIGTERM).await?;
    controller.assert_no_errors()?;

    let user = format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}");
    let granted = granted()?;
    wait::until("every granted verb in the audit log", wait::LIMIT, async || {
        let mut events = kubernetes.audit()?;
        // Other tests try with this account what it may not do.
        events.retain(|event| event.user == user && event.user_agent.starts_with("preload-controller/"));
        let refused: Vec<_> = events.iter().filter(|event| event.code == 403 || event.code == 401).collect();
        ensure!(refused.is_empty(), "refused: {refused:?}");
        ensure!(!events.iter().any(|event| event.subresource == "exec"), "exec");
        let used: BTreeSet<_> = events.iter().map(|e| (resource(e), e.verb.clone())).collect();
        let unused: Vec<_> = granted.difference(&used).collect();
        ensure!(unused.is_empty(), "granted, but not used: {unused:?}");
        Ok(Some(()))
    })
    .await
}

fn resource(event: &AuditEvent) -> String {
    let subresource =
        if event.subresource.is_empty() { String::new() } else { format!("/{}", event.subresource) };
    format!("{}/{}{subresource}", event.group, event.resource)
}

/// `group/resource` and verb of every rule.
fn granted() -> Result<BTreeSet<(String, String)>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/rbac.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path)?)?;
    let mut granted = BTreeSet::new();
    for document in documents {
        for rule in document["rules"].as_array().into_iter().flatten() {
            let list = |key: &str| -> Vec<String> {
                let items = rule[key].as_array().into_iter().flatten();
                items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
            };
            for group in list("apiGroups") {
                for resource in list("resources") {
                    for verb in list("verbs") {
                        granted.insert((format!("{group}/{resource}"), verb));
                    }
                }
            }
        }
    }
    Ok(granted)
}

/// TLS with a certificate that names the runtime, and a token; a sidecar of another runtime gets neither.
#[tokio::test]
async fn tls_and_token() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("tls", &[]).await?;
    let preloads = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    let folder = kubernetes.sandbox().folder("tls")?;
    let authority = Authority::new(&folder)?;
    let token = folder.join("token");
    fs::write(&token, "a-secret-of-the-test\n")?;
    let sidecar = |name: String| {
        let (authority, token) = (&authority, &token);
        async move {
            let identity = authority.identity(&[&name])?;
            let setup = Setup::new(alluxio).tls(&identity).argument("--token-file").argument(token);
            setup.start().await
        }
    };
    let right = sidecar(format!("right-master.{namespace}.preload.dev")).await?;
    let wrong = sidecar(format!("other-master.{namespace}.preload.dev")).await?;
    let setup = ControllerSetup::new(kubernetes, &namespace)
        .argument("--tls-ca")
        .argument(authority.certificate())
        .argument("--token-file")
        .argument(&token);
    let controller = setup.start(kubernetes).await?;
    let data = alluxio.data("tls")?;
    data.files(2, MIB)?;
    for (name, sidecar) in [("right", &right), ("wrong", &wrong)] {
        let fluid = Fluid::new(kubernetes, &namespace, name).await?;
        fluid.create(spec(data.path(), 1), &[]).await?;
        fluid.everything_ready(sidecar.address(), WORKERS).await?;
    }
    preloads.until("right", |shown| shown.text("/status/phase") == "Loaded").await?;
    let shut = preloads.until("wrong", |s| s.condition("SidecarReachable").0 == "False").await?;
    ensure!(shut.text("/status/phase") == "Pending", "{}", shut.object["status"]);
    let everything = format!(
        "{}{}",
        controller.log(),
        kubernetes.kubectl(&["get", "pl,events", "-A", "-o", "yaml"]).await?.stdout
    );
    ensure!(!everything.contains("a-secret-of-the-test"), "the token is in a log or an object");
    controller.assert_no_errors()
}

/// Certificates are rotated while a load is watched: the new ones are read without a restart.
#[tokio::test]
async fn rotated_certificates() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("rotate", &[]).await?;
    let preloads = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    let folder = kubernetes.sandbox().folder("rotate")?;
    let (old, new) = (Authority::new(&folder)?, Authority::new(&folder)?);
    let name = format!("{NAME}-master.{namespace}.preload.dev");
    let (certificate, key, ca) = (folder.join("tls.crt"), folder.join("tls.key"), folder.join("ca.crt"));
    let install = |authority: &Authority| -> Result<()> {
        let identity = authority.identity(&[&name])?;
        fs::copy(&identity.certificate, &certificate)?;
        fs::copy(&identity.key, &key)?;
        fs::copy(authority.certificate(), &ca)?;
        Ok(())
    };
    install(&old)?;
    let setup = Setup::new(alluxio).argument("--tls-cert").argument(&certificate).argument("--tls-key");
    let mut sidecar = setup.argument(&key).start().await?;
    let setup = ControllerSetup::new(kubernetes, &namespace).argument("--tls-ca").argument(&ca);
    let controller = setup.start(kubernetes).await?;
    let data = alluxio.data("rotate")?;
    data.files(1, MIB)?;
    let fluid = Fluid::new(kubernetes, &namespace, NAME).await?;
    fluid.create(spec(data.path(), 1), &[]).await?;
    fluid.everything_ready(sidecar.address(), WORKERS).await?;
    preloads.until(NAME, |shown| shown.text("/status/phase") == "Loaded").await?;
    sidecar.kill9().await?;
    preloads.until(NAME, |s| s.condition("SidecarReachable").0 == "False").await?;
    install(&new)?;
    sidecar.restart().await?;
    let begun = preloads.of(NAME).len();
    wait::until("the sidecar to be reachable again", wait::LIMIT, async || {
        let since = preloads.of(NAME).split_off(begun);
        Ok(since.iter().any(|s| s.condition("SidecarReachable").0 == "True").then_some(()))
    })
    .await?;
    ensure!(preloads.of(NAME).pop().is_some_and(|s| s.number("/status/run") == 1), "nothing was taken back");
    controller.assert_no_errors()
}

/// A wrong token is a shut gate with a reason, not a failed load.
#[tokio::test]
async fn a_wrong_token_is_a_shut_gate() -> Result<()> {
    let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
    let namespace = kubernetes.namespace("token", &[]).await?;
    let preloads = Course::of_preloads(&kubernetes.client().await?, &namespace).await?;
    let folder = kubernetes.sandbox().folder("token")?;
    let (theirs, ours) = (folder.join("theirs"), folder.join("ours"));
    fs::write(&theirs, "right")?;
    fs::write(&ours, "wrong")?;
    let sidecar = Setup::new(alluxio).argument("--token-file").argument(&theirs).start().await?;
    let setup = ControllerSetup::new(kubernetes, &namespace).argument("--token-file").argument(&ours);
    let controller = setup.argument("--allow-plaintext-token").start(kubernetes).await?;
    let data = alluxio.data("token")?;
    data.files(1, MIB)?;
    let fluid = Fluid::new(kubernetes, &namespace, NAME).await?;
    fluid.create(spec(data.path(), 1), &[]).await?;
    fluid.everything_ready(sidecar.address(), WORKERS).await?;
    preloads
        .until(NAME, |s| s.condition("SidecarReachable") == ("False".into(), "Unauthenticated".into()))
        .await?;
    // The file is read again: no restart.
    fs::write(&ours, "right")?;
    preloads.until(NAME, |shown| shown.text("/status/phase") == "Loaded").await?;
    controller.assert_no_errors()
}
