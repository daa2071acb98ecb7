//! What `deploy/` holds, applied to a real API server as users do it.
//!
//! There is no node here: that the pods start and work is shown by `nodes`.

use anyhow::{Context, Result, ensure};
use preload_tests::{Crds, Kubernetes, KubernetesOptions, crds, wait};
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

/// The pods of the Deployment are admitted under the restricted level, which is enforced.
async fn controllers_are_admitted(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = get(kubernetes, &["namespace", "preload-system"]).await?;
    let level = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    ensure!(level == "restricted", "{level}");
    wait::until("two pods of the controller", wait::LIMIT, async || {
        let pods = get(kubernetes, &["pods", "-n", "preload-system"]).await?;
        Ok((pods["items"].as_array().is_some_and(|pods| pods.len() == 2)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_overlay_for_fluid_is_accepted() -> Result<()> {
    let kubernetes = control_plane().await?;
    crds::install(&kubernetes, Crds::StockFluid).await?;
    let before = get(&kubernetes, &["crd", "alluxioruntimes.data.fluid.io"]).await?;
    apply(&kubernetes, "fluid").await?;
    controllers_are_admitted(&kubernetes).await?;
    let after = get(&kubernetes, &["crd", "alluxioruntimes.data.fluid.io"]).await?;
    ensure!(before["spec"] == after["spec"], "Fluid's CRD was touched");
    Ok(())
}

#[tokio::test]
async fn the_overlay_without_fluid_is_accepted() -> Result<()> {
    let kubernetes = control_plane().await?;
    apply(&kubernetes, "standalone").await?;
    controllers_are_admitted(&kubernetes).await?;
    // The example's own pods, and the runtime of the README.
    wait::until("pods of the masters and workers", wait::LIMIT, async || {
        let pods = get(&kubernetes, &["pods", "-n", "alluxio"]).await?;
        let roles: Vec<_> = pods["items"].as_array().context("a list")?.iter().collect();
        let of = |role: &str| roles.iter().filter(|pod| pod["metadata"]["labels"]["role"] == role).count();
        Ok((of("alluxio-master") == 1 && of("alluxio-worker") == 2).then_some(()))
    })
    .await?;
    let runtime = directory("examples/alluxioruntime.yaml");
    let arguments = ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", &runtime];
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
