//! The webhook's certificates, and what strangers send to it.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use kube::client::Body;
use preload_tests::{Authority, ControllerSetup, Registration, shared_fluid, wait};
use serde_json::json;

use super::world::{IMAGE, OPTED_IN, World, container, create, modest_master};

/// A client of the webhook itself, who trusts `authority`.
fn stranger(address: &str, authority: &str) -> Result<kube::Client> {
    let mut config = kube::Config::new(format!("https://{address}").parse()?);
    let encoded: String = authority.lines().filter(|line| !line.starts_with("-----")).collect();
    let der: k8s_openapi::ByteString = serde_json::from_value(json!(encoded))?;
    config.root_cert = Some(vec![der.0]);
    kube::Client::try_from(config).context("make a client")
}

async fn post(client: &kube::Client, path: &str, body: Vec<u8>) -> Result<u16> {
    let request = axum::http::Request::post(path).body(Body::from(body))?;
    Ok(client.send(request).await?.status().as_u16())
}

/// Garbage is refused, and does no harm.
#[tokio::test]
async fn garbage() -> Result<()> {
    let world = World::new("garbage").await?;
    let authority = world.registration.authority(world.kubernetes).await?.context("an authority")?;
    let client = stranger(world.controller.webhook_address()?, &authority)?;
    let review = |request: serde_json::Value| {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
            .to_string()
    };
    for garbage in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        json!({ "apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview" }).to_string(),
        review(json!(null)),
        review(json!({ "object": { "metadata": 3 } })),
    ] {
        ensure!(post(&client, "/mutate", garbage.clone().into()).await? == 400, "{garbage:?}");
    }
    // The connection may be cut while the client still writes: then it never reads the answer.
    let oversize = post(&client, "/mutate", vec![b' '; 5 << 20]).await;
    ensure!(oversize.as_ref().map_or(true, |status| *status == 413), "{oversize:?}");
    ensure!(post(&client, "/", Vec::new()).await? == 404);
    // A request as it should be, with a pod as it should not be.
    for object in
        [json!(null), json!([]), json!({ "metadata": { "labels": { "role": "alluxio-master" } }, "spec": 1 })]
    {
        let of = |kind: &str| json!({ "group": "", "version": "v1", kind: "pods" });
        let request = json!({
            "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "resource": of("resource"),
            "namespace": world.namespace, "operation": "CREATE", "userInfo": {}, "object": object,
        });
        ensure!(post(&client, "/mutate", review(request).into()).await? == 200, "{object}");
    }
    container(&world.create(modest_master("after")).await?, "preload-sidecar")?;
    world.controller.assert_no_errors()
}

/// The controller writes its authority into its registration, also if that comes late, and nothing else.
#[tokio::test]
async fn the_registration_is_kept() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("kept", &[OPTED_IN]).await?;
    let registration = Registration::of(&namespace);
    let setup = ControllerSetup::new(kubernetes, &namespace).webhook();
    let setup = setup.argument(format!("--sidecar-image={IMAGE}"));
    let setup = setup.argument(format!("--webhook-configuration={}", registration.name()));
    let mut controller = setup.start(kubernetes).await?;
    registration.create(kubernetes, controller.webhook_address()?, None).await?;
    let before = registration.get(kubernetes).await?;
    registration.works(kubernetes).await?;
    let mut after = registration.get(kubernetes).await?;
    for webhook in after.webhooks.iter_mut().flatten() {
        ensure!(webhook.client_config.ca_bundle.take().is_some());
    }
    ensure!(after.webhooks == before.webhooks, "{after:?}");
    // Another root, another authority.
    let old = registration.authority(kubernetes).await?;
    controller.end(nix::sys::signal::Signal::SIGTERM).await?;
    let roots = Api::<Secret>::namespaced(kubernetes.client().await?, &namespace);
    roots.delete("preload-controller-root", &DeleteParams::default()).await.context("delete the root")?;
    controller.restart().await?;
    wait::until("the new authority to be written", wait::LIMIT, async || {
        Ok((registration.authority(kubernetes).await? != old).then_some(()))
    })
    .await?;
    registration.works(kubernetes).await?;
    registration.delete(kubernetes).await
}

/// Certificates in files, as of cert-manager, on a replica that does not lead: none yet, the first ones, others.
#[tokio::test]
async fn certificates_from_files_are_read_again() -> Result<()> {
    let kubernetes = shared_fluid().await?;
    let namespace = kubernetes.namespace("files", &[OPTED_IN]).await?;
    let leader = ControllerSetup::new(kubernetes, &namespace).start(kubernetes).await?;
    let folder = kubernetes.sandbox().folder("webhook")?;
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let mut setup = ControllerSetup::new(kubernetes, &namespace).webhook();
    setup = setup.argument(format!("--sidecar-image={IMAGE}"));
    setup = setup.argument("--webhook-cert").argument(&certificate).argument("--webhook-key").argument(&key);
    let mut standby = setup.spawn(kubernetes)?;
    standby.says("no certificate").await?;

    let address = standby.webhook_address()?.to_owned();
    let (host, _) = address.split_once(':').context("HOST:PORT")?;
    let install = |authority: &Authority| -> Result<String> {
        let identity = authority.identity(&[host])?;
        fs::copy(&identity.key, &key)?;
        fs::copy(&identity.certificate, &certificate)?;
        Ok(fs::read_to_string(authority.certificate())?)
    };
    let (old, new) = (Authority::new(&folder)?, Authority::new(&folder)?);
    let trusted = install(&old)?;
    standby.says("ok: standby").await?;
    let registration = Registration::of(&namespace);
    registration.create(kubernetes, &address, Some(&trusted)).await?;
    registration.works(kubernetes).await?;

    let trusted = install(&new)?;
    let client = stranger(&address, &trusted)?;
    wait::until("the new certificate to be shown", wait::LIMIT, async || {
        Ok((post(&client, "/mutate", Vec::new()).await? == 400).then_some(()))
    })
    .await?;
    registration.trust(kubernetes, &trusted).await?;
    registration.works(kubernetes).await?;
    let pods = kube::Api::namespaced(kubernetes.client().await?, &namespace);
    container(&create(&pods, modest_master("rotated")).await?, "preload-sidecar")?;
    registration.delete(kubernetes).await?;
    leader.assert_no_errors()?;
    standby.assert_no_errors()
}
