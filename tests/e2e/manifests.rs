//! What `deploy/` holds, applied to a real API server as users do it.
//!
//! There is no node here: that the pods start and work is shown by `nodes`.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use preload_tests::{Crds, Kubernetes, KubernetesOptions, crds};
use serde_json::{Value, json};

/// A directory of `deploy/`.
fn directory(name: &str) -> String {
    format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn control_plane() -> Result<Kubernetes> {
    Kubernetes::start(KubernetesOptions { controller_manager: true }).await
}

async fn get(kubernetes: &Kubernetes, arguments: &[&str]) -> Result<Value> {
    let output = kubernetes.kubectl(&[&["get", "-o", "json"], arguments].concat()).await?.success()?;
    serde_json::from_str(&output).context("understand kubectl")
}

/// `kubectl apply -k`, twice; a second time nothing is left to change. Unknown fields are errors, as is what the
/// restricted level forbids.
async fn apply(kubernetes: &Kubernetes, overlay: &str) -> Result<()> {
    let overlay = directory(&format!("overlays/{overlay}"));
    let arguments = ["apply", "--server-side", "--validate=strict", "-k", &overlay];
    // A custom resource of a kind that the same command brings may come too early, as with any tool.
    let first = kubernetes.kubectl(&arguments).await?;
    ensure!(first.exit.success(), "{}", first.stderr);
    ensure!(!first.stderr.contains("Warning"), "{}", first.stderr);
    let again =
        kubernetes.kubectl(&[&["diff", "--server-side", "-k"], &[overlay.as_str()][..]].concat()).await?;
    ensure!(again.exit.success(), "applied again it would change something:\n{}", again.stdout);
    Ok(())
}

/// The pods of a Deployment or StatefulSet are admitted where they are to run, at the Pod Security level that is
/// enforced there. (Nothing makes pods here.)
async fn is_admitted(kubernetes: &Kubernetes, namespace: &str, owner: &str) -> Result<()> {
    let found = get(kubernetes, &["namespace", namespace]).await?;
    let level = &found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    ensure!(level == "restricted", "{level} is enforced in {namespace}");
    let template = get(kubernetes, &["-n", namespace, owner]).await?["spec"]["template"].clone();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "generateName": "admitted-", "labels": template["metadata"]["labels"] },
        "spec": template["spec"],
    }))?;
    let pods: Api<Pod> = Api::namespaced(kubernetes.client().await?, namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &pod).await.with_context(|| format!("create a pod of {owner}")).map(drop)
}

#[tokio::test]
async fn the_overlay_for_fluid_is_accepted() -> Result<()> {
    let kubernetes = control_plane().await?;
    crds::install(&kubernetes, Crds::StockFluid).await?;
    let before = get(&kubernetes, &["crd", "alluxioruntimes.data.fluid.io"]).await?;
    apply(&kubernetes, "fluid").await?;
    is_admitted(&kubernetes, "preload-system", "deployment/preload-controller").await?;
    let after = get(&kubernetes, &["crd", "alluxioruntimes.data.fluid.io"]).await?;
    ensure!(before["spec"] == after["spec"], "Fluid's CRD was touched");
    Ok(())
}

#[tokio::test]
async fn the_overlay_without_fluid_is_accepted() -> Result<()> {
    let kubernetes = control_plane().await?;
    apply(&kubernetes, "standalone").await?;
    is_admitted(&kubernetes, "preload-system", "deployment/preload-controller").await?;
    for owner in ["statefulset/alluxio-master", "statefulset/alluxio-worker"] {
        is_admitted(&kubernetes, "alluxio", owner).await?;
    }
    let runtime = directory("examples/alluxioruntime.yaml");
    let preload = directory("examples/preload.yaml");
    let arguments =
        ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", &runtime, "-f", &preload];
    kubernetes.kubectl(&arguments).await?.success().map(drop)
}

/// The policy speaks of the ServiceAccount by its full name, the webhook of the Service, the role of the Secret
/// and the Lease: nothing checks but this that they are those of the manifests and of the program.
#[test]
fn names_agree() -> Result<()> {
    let read = |file: &str| -> Result<Vec<Value>> {
        let path = directory(&format!("base/{file}.yaml"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        serde_saphyr::from_multiple(&text).with_context(|| format!("understand {path}"))
    };
    let deployment = &read("deployment")?[0];
    let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
    let namespace = &deployment["metadata"]["namespace"];
    let policy = &read("policy")?[0];
    let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().context("a condition")?;
    let user = format!(
        "'system:serviceaccount:{}:{}'",
        namespace.as_str().unwrap_or_default(),
        account.as_str().unwrap_or_default()
    );
    ensure!(condition.contains(&user), "{condition} does not name {user}");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    ensure!(deployment["spec"]["selector"]["matchLabels"] == *labels, "{labels}");
    for (file, pointer) in
        [("disruption", "/spec/selector/matchLabels"), ("network", "/spec/podSelector/matchLabels")]
    {
        ensure!(read(file)?[0].pointer(pointer) == Some(labels), "{file}.yaml selects other pods");
    }
    let webhook = read("webhook")?;
    let service = webhook.iter().find(|document| document["kind"] == "Service").context("a Service")?;
    ensure!(service["spec"]["selector"] == *labels, "the Service selects other pods");
    let configuration =
        webhook.iter().find(|d| d["kind"] == "MutatingWebhookConfiguration").context("a configuration")?;
    let target = &configuration["webhooks"][0]["clientConfig"]["service"];
    ensure!(target["name"] == service["metadata"]["name"] && target["namespace"] == *namespace, "{target}");
    ensure!(configuration["webhooks"][0]["failurePolicy"] == json!("Ignore"), "it must fail open");
    Ok(())
}

/// The page of the security model names tests: each of them exists.
#[test]
fn tests_that_are_named_exist() -> Result<()> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md"))?;
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e");
    let mut named = 0;
    for words in page.split('`').skip(1).step_by(2).filter(|words| words.contains("::")) {
        let (module, test) = words.rsplit_once("::").context("a path")?;
        let file = format!("{sources}/{}.rs", module.replace("::", "/"));
        let source = std::fs::read_to_string(&file).with_context(|| format!("{words}: read {file}"))?;
        ensure!(source.contains(&format!("fn {test}(")), "there is no test {words}");
        named += 1;
    }
    ensure!(named >= 10, "only {named} tests are named");
    Ok(())
}
