//! Keeps the `caBundle` of a MutatingWebhookConfiguration equal to our authority.
//!
//! The leader does it, so that replicas which learn of a new authority at different moments do not write against
//! each other; without a leader the old bundle stays, and webhooks work on. Nothing but the bundles is written,
//! and only if nobody has moved the webhooks meanwhile.

use std::{sync::Arc, time::Duration};

use json_patch::Patch as JsonPatch;
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::ServingCertificate;

/// Somebody may have written over it.
const LOOK: Duration = Duration::from_secs(60);
/// It is not there yet, or the API server does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// The registration of one name, and what its bundle is to be.
#[derive(Clone)]
pub struct Registration {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
    certificates: watch::Receiver<Option<Arc<ServingCertificate>>>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Registration {
    #[must_use]
    pub fn new(
        client: &Client,
        name: &str,
        certificates: watch::Receiver<Option<Arc<ServingCertificate>>>,
    ) -> Self {
        Self { api: Api::all(client.clone()), name: name.to_owned(), certificates }
    }

    /// Works until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut told = None;
        while !stop.is_cancelled() {
            let newest = self.certificates.borrow_and_update().clone();
            let pause = match newest {
                None => LOOK,
                Some(certificate) => match stop.run_until_cancelled(self.write(&certificate.ca_pem)).await {
                    None => return,
                    Some(Ok(())) => {
                        told = None;
                        LOOK
                    }
                    Some(Err(error)) => {
                        let problem = error.to_string();
                        if told.as_ref() != Some(&problem) {
                            tracing::warn!(
                                name = self.name,
                                problem,
                                "the caBundle of the webhook is not kept; trying again"
                            );
                            told = Some(problem);
                        }
                        AGAIN
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                // An error: nobody makes certificates any more.
                Ok(()) = self.certificates.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn write(&self, ca_pem: &str) -> Result<(), kube::Error> {
        let found = self.api.get(&self.name).await?;
        let Some(patch) = patch(&found, ca_pem) else { return Ok(()) };
        self.api.patch(&self.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await?;
        tracing::info!(name = self.name, "the caBundle of the webhook was written");
        Ok(())
    }
}

/// None: it is as it should be.
fn patch(found: &MutatingWebhookConfiguration, ca_pem: &str) -> Option<JsonPatch> {
    let wanted = ByteString(ca_pem.as_bytes().to_vec());
    let mut operations = Vec::new();
    for (index, webhook) in found.webhooks.iter().flatten().enumerate() {
        if webhook.client_config.ca_bundle.as_ref() != Some(&wanted) {
            let at = format!("/webhooks/{index}");
            operations.push(json!({ "op": "test", "path": format!("{at}/name"), "value": webhook.name }));
            operations
                .push(json!({ "op": "add", "path": format!("{at}/clientConfig/caBundle"), "value": wanted }));
        }
    }
    let patch = serde_json::from_value(operations.into()).ok()?;
    Some(patch).filter(|patch: &JsonPatch| !patch.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bundles_that_differ_are_written() {
        let found: MutatingWebhookConfiguration = serde_json::from_value(json!({ "webhooks": [
            { "name": "a", "clientConfig": { "caBundle": ByteString(b"ca".to_vec()) }, "admissionReviewVersions": [], "sideEffects": "None" },
            { "name": "b", "clientConfig": {}, "admissionReviewVersions": [], "sideEffects": "None" },
        ]}))
        .unwrap();
        let written = serde_json::to_value(patch(&found, "ca").unwrap()).unwrap();
        assert_eq!(
            written,
            json!([
                { "op": "test", "path": "/webhooks/1/name", "value": "b" },
                { "op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "Y2E=" },
            ])
        );
        let mut patched = serde_json::to_value(&found).unwrap();
        json_patch::patch(&mut patched, &serde_json::from_value::<JsonPatch>(written).unwrap()).unwrap();
        assert!(patch(&serde_json::from_value(patched).unwrap(), "ca").is_none());
    }
}
