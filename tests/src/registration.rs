//! The registration of the controller's webhook: the document of `deploy/base`, for one namespace, and with an
//! address, because no Service leads anywhere without nodes.

use crate::kubernetes::Kubernetes;
use crate::wait;
use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

/// What is shipped.
const SHIPPED: &str = include_str!("../../deploy/base/webhook.yaml");

/// See the module. It stays when it is dropped, and does nothing once the webhook has ended.
#[derive(Debug, Clone)]
pub struct Registration {
    name: String,
    namespace: String,
}

impl Registration {
    /// Of this namespace, not created yet. A controller that is to keep its `caBundle` is given its name.
    pub fn of(namespace: &str) -> Self {
        Self { name: format!("preload-{namespace}"), namespace: namespace.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn api(client: &Client) -> Api<MutatingWebhookConfiguration> {
        Api::all(client.clone())
    }

    /// Registers the webhook at `HOST:PORT`; `authority` (PEM) unless the controller writes it.
    pub async fn create(
        &self,
        kubernetes: &Kubernetes,
        address: &str,
        authority: Option<&str>,
    ) -> Result<()> {
        let shipped = SHIPPED.split("\n---\n").next().context("the registration comes first")?;
        let mut registration: MutatingWebhookConfiguration = serde_saphyr::from_str(shipped)?;
        registration.metadata.name = Some(self.name.clone());
        for webhook in registration.webhooks.iter_mut().flatten() {
            let service = webhook.client_config.service.take().context("a Service is shipped")?;
            let path = service.path.context("with a path")?;
            webhook.client_config.url = Some(format!("https://{address}{path}"));
            webhook.client_config.ca_bundle = authority.map(|pem| ByteString(pem.as_bytes().to_vec()));
            let selector = webhook.namespace_selector.get_or_insert_default();
            let labels = selector.match_labels.get_or_insert_default();
            labels.insert("kubernetes.io/metadata.name".to_owned(), self.namespace.clone());
        }
        let api = Self::api(&kubernetes.client().await?);
        api.create(&PostParams::default(), &registration).await.context("register the webhook").map(drop)
    }

    pub async fn get(&self, kubernetes: &Kubernetes) -> Result<MutatingWebhookConfiguration> {
        Self::api(&kubernetes.client().await?).get(&self.name).await.context("get the registration")
    }

    /// The authority (PEM) that the API server trusts; none: the controller has not written it yet.
    pub async fn authority(&self, kubernetes: &Kubernetes) -> Result<Option<String>> {
        let webhook = self.get(kubernetes).await?.webhooks.and_then(|webhooks| webhooks.into_iter().next());
        let bundle = webhook.context("a webhook")?.client_config.ca_bundle;
        bundle.map(|bundle| String::from_utf8(bundle.0).context("PEM")).transpose()
    }

    /// Makes the API server trust another authority.
    pub async fn trust(&self, kubernetes: &Kubernetes, authority: &str) -> Result<()> {
        let bundle = ByteString(authority.as_bytes().to_vec());
        let patch = json!([{ "op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle }]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let api = Self::api(&kubernetes.client().await?);
        api.patch(&self.name, &PatchParams::default(), &patch).await.context("change the authority").map(drop)
    }

    /// Waits until the API server asks the webhook about pods: it learns of registrations a moment later.
    pub async fn works(&self, kubernetes: &Kubernetes) -> Result<()> {
        let probe: Pod = serde_json::from_value(json!({
            "metadata": { "name": "probe", "labels": { "role": "alluxio-master" } },
            // No Pod Security level keeps it out.
            "spec": {
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "alluxio-master", "image": "alluxio",
                    "securityContext": {
                        "runAsUser": 1000, "allowPrivilegeEscalation": false,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }],
            },
        }))?;
        let pods: Api<Pod> = Api::namespaced(kubernetes.client().await?, &self.namespace);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        wait::until("the webhook to be asked", wait::LIMIT, async || {
            let admitted = pods.create(&dry_run, &probe).await?;
            let annotations = admitted.metadata.annotations.unwrap_or_default();
            Ok(annotations.contains_key("preload.dev/injected").then_some(()))
        })
        .await
    }

    pub async fn delete(&self, kubernetes: &Kubernetes) -> Result<()> {
        let api = Self::api(&kubernetes.client().await?);
        api.delete(&self.name, &DeleteParams::default()).await.context("delete the registration").map(drop)
    }
}
