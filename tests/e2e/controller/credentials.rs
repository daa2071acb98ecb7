//! Credentials that the controller makes: whom they open, how they are renewed, what the controller may read.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use nix::sys::signal::Signal;
use preload_tests::{
    Cluster, Controller, ControllerSetup, Course, Fluid, Kubernetes, MIB, Registration, SecretVolume, Setup,
    Sidecar, grpcurl, shared, shared_fluid, wait,
};
use serde_json::json;
use tonic::Code;

use super::security::{SYSTEM, account};
use super::world::{NAME, WORKERS, spec};

const ROOT: &str = "preload-controller-root";

/// A runtime whose sidecar has its credentials from the Secret that the controller writes.
struct Managed {
    kubernetes: &'static Kubernetes,
    alluxio: &'static Cluster,
    namespace: String,
    fluid: Fluid,
    preloads: Course,
    volume: SecretVolume,
    sidecar: Sidecar<'static>,
    controller: Controller<'static>,
}

impl Managed {
    /// The lease, and with it the root, lie in the test's own namespace.
    async fn new(prefix: &str, arguments: &[&str]) -> Result<Self> {
        let (kubernetes, alluxio) = tokio::try_join!(shared_fluid(), shared())?;
        let namespace = kubernetes.namespace(prefix, &[]).await?;
        let client = kubernetes.client().await?;
        let preloads = Course::of_preloads(&client, &namespace).await?;
        let name = format!("{NAME}-master-preload");
        let volume = SecretVolume::mount(kubernetes.sandbox(), &client, &namespace, &name)?;
        // Nothing is in it yet: the sidecar waits.
        let sidecar = Setup::new(alluxio).argument("--credentials").argument(volume.directory()).spawn()?;
        let setup = ControllerSetup::new(kubernetes, &namespace).managed_credentials();
        let controller = arguments
            .iter()
            .fold(setup, |setup, argument| setup.argument(argument))
            .start(kubernetes)
            .await?;
        let fluid = Fluid::new(kubernetes, &namespace, NAME).await?;
        Ok(Self { kubernetes, alluxio, namespace, fluid, preloads, volume, sidecar, controller })
    }

    async fn load(&self, name: &str) -> Result<()> {
        let data = self.alluxio.data(name)?;
        data.files(2, MIB)?;
        self.fluid.create(spec(data.path(), 1), &[]).await?;
        self.fluid.create_injected_master_pod(self.sidecar.address()).await?;
        self.fluid.report_ready(WORKERS).await?;
        self.loaded(1).await
    }

    async fn loaded(&self, run: i64) -> Result<()> {
        let loaded = |shown: &preload_tests::Shown| {
            shown.text("/status/phase") == "Loaded" && shown.number("/status/run") == run
        };
        self.preloads.until(NAME, loaded).await.map(drop)
    }

    async fn secret(&self, name: &str) -> Result<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.kubernetes.client().await?, &self.namespace);
        secrets.get(name).await.with_context(|| format!("get the Secret {name}"))
    }

    /// Another path, which takes a new run.
    async fn load_more(&self, name: &str, run: i64) -> Result<()> {
        let data = self.alluxio.data(name)?;
        data.files(1, MIB)?;
        self.fluid.edit(json!({ "spec": { "data": { "preload": { "path": data.path() } } } })).await?;
        self.loaded(run).await
    }

    /// How often the controller has written Secrets of this namespace, or tried to.
    fn written_secrets(&self) -> Result<usize> {
        let mut events = self.kubernetes.audit()?;
        events.retain(|event| event.namespace == self.namespace && event.resource == "secrets");
        Ok(events
            .iter()
            .filter(|event| event.verb != "get" && event.user_agent.contains("controller"))
            .count())
    }

    /// What a stranger is told who shows this token.
    async fn knock(&self, token: Option<&str>) -> Result<Result<(), Code>> {
        let ca = self.volume.directory().join("ca.crt");
        let name = format!("{NAME}-master.{}.preload.dev", self.namespace);
        let header = token.map(|token| format!("authorization: Bearer {token}"));
        let mut arguments = vec!["-cacert", ca.to_str().context("a path")?, "-servername", &name];
        if let Some(header) = &header {
            arguments.extend(["-H", header]);
        }
        arguments.extend([self.sidecar.address(), "preload.v1.PreloadService/ListLoads"]);
        let output = grpcurl(self.kubernetes.sandbox(), &arguments).await?;
        if output.exit.success() {
            return Ok(Ok(()));
        }
        ensure!(output.stderr.contains("Unauthenticated"), "{}", output.stderr);
        Ok(Err(Code::Unauthenticated))
    }
}

/// Nobody has configured anything: the Secret appears when the sidecar cannot be reached without it, belongs to
/// the StatefulSet, and opens this sidecar to nobody else.
#[tokio::test]
async fn a_sidecar_without_credentials_gets_some() -> Result<()> {
    let mut managed = Managed::new("managed", &[]).await?;
    managed.load("managed").await?;
    let secret = managed.secret(&format!("{NAME}-master-preload")).await?;
    ensure!(secret.type_.as_deref() == Some("preload.dev/credentials"), "{:?}", secret.type_);
    let owners = secret.metadata.owner_references.unwrap_or_default();
    ensure!(owners.len() == 1 && owners[0].kind == "StatefulSet", "{owners:?}");
    let tokens = managed.volume.read("tokens")?;
    ensure!(tokens.lines().count() == 3, "this period's, the last one's, the next one's");
    for token in tokens.lines() {
        ensure!(managed.knock(Some(token)).await?.is_ok(), "an accepted token is refused");
    }
    for wrong in [None, Some("0".repeat(64))] {
        ensure!(managed.knock(wrong.as_deref()).await? == Err(Code::Unauthenticated), "{wrong:?}");
    }
    // Neither tokens nor keys are in a log or in an object that people look at.
    let shown = managed.kubernetes.kubectl(&["get", "pl,events,pods", "-A", "-o", "yaml"]).await?.stdout;
    let everything = format!("{shown}{}{}", managed.controller.log(), managed.sidecar.log());
    ensure!(!tokens.lines().any(|token| everything.contains(token)), "a token is in a log or an object");
    ensure!(!everything.contains("PRIVATE KEY"), "a key is in a log or an object");
    // Another leader finds all in order, and writes none of it again.
    let written = managed.written_secrets()?;
    managed.controller.end(Signal::SIGTERM).await?;
    managed.controller.restart().await?;
    managed.load_more("managed-more", 2).await?;
    ensure!(managed.written_secrets()? == written, "a Secret was written again");
    managed.controller.assert_no_errors()
}

/// Certificates and tokens are renewed every two seconds while loads go on; nothing is restarted, and what was
/// accepted long ago is not any more.
#[tokio::test]
async fn they_are_renewed_without_a_restart() -> Result<()> {
    let managed = Managed::new("renewed", &["--rotate-credentials=2s"]).await?;
    managed.load("renewed-0").await?;
    let (first, certificate) = (managed.volume.read("tokens")?, managed.volume.read("tls.crt")?);
    let pid = managed.sidecar.pid()?;
    wait::until("tokens that have nothing in common with the first", wait::LIMIT, async || {
        let now = managed.volume.read("tokens")?;
        Ok((!now.lines().any(|token| first.contains(token))).then_some(()))
    })
    .await?;
    for run in 2..5 {
        managed.load_more(&format!("renewed-{run}"), run).await?;
    }
    ensure!(managed.volume.read("tls.crt")? != certificate, "the certificate is the first one still");
    wait::until("the first token to be refused", wait::LIMIT, async || {
        let old = first.lines().next().context("a token")?;
        Ok((managed.knock(Some(old)).await? == Err(Code::Unauthenticated)).then_some(()))
    })
    .await?;
    ensure!(managed.sidecar.pid()? == pid, "the sidecar was restarted");
    managed.controller.assert_no_errors()
}

/// The way to make everything anew after a leak: delete the root.
#[tokio::test]
async fn a_deleted_root_is_replaced_and_all_that_hangs_on_it() -> Result<()> {
    let mut managed = Managed::new("root", &[]).await?;
    managed.load("root-0").await?;
    let (tokens, authority) = (managed.volume.read("tokens")?, managed.volume.read("ca.crt")?);
    let secrets: Api<Secret> = Api::namespaced(managed.kubernetes.client().await?, &managed.namespace);
    // A master that nothing is loaded for: nobody would notice that its credentials are old.
    let idle = Fluid::new(managed.kubernetes, &managed.namespace, "idle").await?;
    idle.create_injected_master_pod(managed.sidecar.address()).await?;
    secrets.delete(ROOT, &DeleteParams::default()).await.context("delete the root")?;
    // Otherwise within a minute.
    managed.controller.end(Signal::SIGTERM).await?;
    managed.controller.restart().await?;
    wait::until("the credentials of the idle master", wait::LIMIT, async || {
        Ok(secrets.get_opt("idle-master-preload").await?.map(drop))
    })
    .await?;
    managed.load_more("root-1", 2).await?;
    let now = managed.volume.read("tokens")?;
    ensure!(!now.lines().any(|token| tokens.contains(token)), "an old token is accepted still");
    ensure!(managed.volume.read("ca.crt")? != authority, "the authority is the old one still");
    Ok(())
}

/// What an operator has put where ours would be is left alone.
#[tokio::test]
async fn a_secret_of_the_operator_is_left_alone() -> Result<()> {
    let managed = Managed::new("brought", &[]).await?;
    let secrets: Api<Secret> = Api::namespaced(managed.kubernetes.client().await?, &managed.namespace);
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": { "name": format!("{NAME}-master-preload") },
        "stringData": { "tokens": "a-token-of-the-operator\n" },
    }))?;
    secrets.create(&PostParams::default(), &theirs).await?;
    managed.fluid.create(spec("/nothing", 1), &[]).await?;
    managed.fluid.create_injected_master_pod(managed.sidecar.address()).await?;
    managed.fluid.report_ready(WORKERS).await?;
    // The attempt to repair it was made, and refused.
    wait::until("an attempt to write the Secret", wait::LIMIT, async || {
        let attempted = managed.kubernetes.audit()?.into_iter().any(|event| {
            event.namespace == managed.namespace && event.verb == "update" && event.resource == "secrets"
        });
        Ok(attempted.then_some(()))
    })
    .await?;
    let now = managed.secret(&format!("{NAME}-master-preload")).await?;
    ensure!(now.data.is_some_and(|data| data.len() == 1), "the Secret was changed");
    let shut = managed.preloads.until(NAME, |s| s.condition("SidecarReachable").0 == "False").await?;
    ensure!(shut.text("/status/phase") == "Pending", "{}", shut.object["status"]);
    Ok(())
}

/// A master's pod that the webhook sees finds its credentials when it starts: they are written before it is there.
/// A dry run leaves none, nor does a pod that claims a StatefulSet which does not exist.
#[tokio::test]
async fn a_new_master_finds_its_credentials() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("found", &[("preload.dev/enabled", "true")]).await?;
    let client = kubernetes.client().await?;
    let registration = Registration::of(&namespace);
    let setup = ControllerSetup::new(kubernetes, &namespace).managed_credentials().webhook();
    let setup = setup.argument("--sidecar-image=alluxio-preload:test");
    let controller =
        setup.argument(format!("--webhook-configuration={}", registration.name())).start(kubernetes).await?;
    registration.create(kubernetes, controller.webhook_address()?, None).await?;
    registration.works(kubernetes).await?;

    let labels = json!({ "role": "alluxio-master" });
    let template = json!({
        "metadata": { "labels": labels },
        "spec": { "containers": [{ "name": "alluxio-master", "image": "alluxio" }] },
    });
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": { "name": "late-master" },
        "spec": {
            "replicas": 0, "serviceName": "late", "selector": { "matchLabels": labels }, "template": template,
        },
    }))?;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let set = sets.create(&PostParams::default(), &set).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let claim = |name: &str, uid: Option<&str>| -> Result<Pod> {
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!(format!("{name}-0"));
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": uid, "controller": true,
        }]);
        Ok(serde_json::from_value(pod)?)
    };
    let uid = set.metadata.uid.as_deref();
    pods.create(&dry_run(), &claim("late-master", uid)?).await?;
    pods.create(&PostParams::default(), &claim("no-master", uid)?).await?;
    pods.create(&PostParams::default(), &claim("late-master", Some("another"))?).await?;
    let all = ListParams::default().fields("type=preload.dev/credentials");
    ensure!(secrets.list(&all).await?.items.is_empty(), "credentials for whom?");

    // The garbage collector may have been quicker: its owner does not exist.
    let _ = pods.delete("late-master-0", &DeleteParams::default().grace_period(0)).await;
    let pod = wait::until("the pod of the StatefulSet", wait::LIMIT, async || {
        Ok(pods.create(&PostParams::default(), &claim("late-master", uid)?).await.ok())
    })
    .await?;
    let secret = secrets.get("late-master-preload").await.context("the Secret")?;
    ensure!(secret.metadata.creation_timestamp <= pod.metadata.creation_timestamp, "too late");
    ensure!(secret.metadata.owner_references.is_some_and(|o| Some(&*o[0].uid) == uid), "not owned");
    registration.delete(kubernetes).await?;
    controller.assert_no_errors()
}

/// The role of the manifests, with their policy: no Secret can be read, and none of another type be written.
#[tokio::test]
async fn no_secret_of_others_can_be_read_or_changed() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("secrets", &[]).await?;
    let kubeconfig = account(kubernetes).await?;
    let client = preload_tests::kubernetes::client(&kubeconfig).await?;
    let code = |error: kube::Error| match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    };
    let admin: Api<Secret> = Api::namespaced(kubernetes.client().await?, &namespace);
    let secret = |name: &str, kind: &str| -> Result<Secret> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name }, "type": kind, "stringData": { "password": "hunter2" },
        }))?)
    };
    admin.create(&PostParams::default(), &secret("theirs", "Opaque")?).await?;
    let ours: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    ensure!(code(ours.get("theirs").await.unwrap_err()) == 403, "it can be read");
    ensure!(code(ours.list(&ListParams::default()).await.unwrap_err()) == 403, "they can be listed");
    let patch = kube::api::Patch::Merge(json!({}));
    let patched = ours.patch("theirs", &kube::api::PatchParams::default(), &patch).await;
    ensure!(code(patched.unwrap_err()) == 403, "a patch can read it");
    // A new policy is enforced a moment after it was applied.
    wait::until("the policy to be enforced", wait::LIMIT, async || {
        let created = ours.create(&dry_run(), &secret("another", "Opaque")?).await;
        Ok(created.is_err().then_some(()))
    })
    .await?;
    let created = ours.create(&PostParams::default(), &secret("another", "Opaque")?).await;
    ensure!(code(created.unwrap_err()) == 422, "a Secret of another type can be made");
    let root = ours.create(&PostParams::default(), &secret("another", "preload.dev/root")?).await;
    ensure!(code(root.unwrap_err()) == 422, "a root can be made in any namespace");
    let replaced = ours.replace("theirs", &PostParams::default(), &secret("theirs", "Opaque")?).await;
    ensure!(code(replaced.unwrap_err()) == 422, "a Secret of another type can be replaced");
    let turned = secret("theirs", "preload.dev/credentials")?;
    let stolen = ours.replace("theirs", &PostParams::default(), &turned).await;
    ensure!(code(stolen.unwrap_err()) == 422, "a type can be changed");
    let mine = ours.create(&PostParams::default(), &secret("mine-preload", "preload.dev/credentials")?).await;
    mine.context("a Secret of our own type")?;
    let elsewhere: Api<Secret> = Api::namespaced(client, SYSTEM);
    ensure!(
        code(elsewhere.get("another").await.unwrap_err()) == 403,
        "any Secret of our namespace can be read"
    );
    Ok(())
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}
