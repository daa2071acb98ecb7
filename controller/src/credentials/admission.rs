//! Credentials for a sidecar whose pod is about to be made.

use futures_util::future::BoxFuture;
use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Api, Client, api::ListParams};

use super::{
    identity::{Identity, Owner},
    keeper::Keeper,
};
use crate::webhook::EnsureCredentials;

/// Writes the Secret before the pod that mounts it is there, so that the sidecar need not wait for it.
///
/// Whoever calls the webhook may claim anything: the StatefulSet is looked up, and has to be one of masters.
/// (Listed rather than read: that right is there already.)
pub struct Admission {
    client: Client,
    keeper: std::sync::Arc<Keeper>,
}

impl Admission {
    #[must_use]
    pub fn new(client: Client, keeper: std::sync::Arc<Keeper>) -> Self {
        Self { client, keeper }
    }

    async fn find(&self, namespace: &str, claimed: &OwnerReference) -> Result<Option<Owner>, kube::Error> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        let named = ListParams::default().fields(&format!("metadata.name={}", claimed.name));
        let found = sets.list(&named).await?.items.into_iter().find(|set| {
            let spec = set.spec.as_ref();
            let labels = spec.and_then(|spec| spec.template.metadata.as_ref()?.labels.as_ref());
            let masters =
                labels.and_then(|labels| labels.get("role")).is_some_and(|role| role == "alluxio-master");
            masters && set.metadata.uid.as_ref() == Some(&claimed.uid)
        });
        Ok(found
            .map(|_| Owner { identity: Identity::new(namespace, &claimed.name), uid: claimed.uid.clone() }))
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl EnsureCredentials for Admission {
    fn ensure<'a>(
        &'a self,
        namespace: &'a str,
        stateful_set: &'a OwnerReference,
    ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(async move {
            match self.find(namespace, stateful_set).await? {
                Some(owner) => Ok(self.keeper.write(&owner).await?),
                None => {
                    Err(format!("there is no StatefulSet {} of masters with that uid", stateful_set.name)
                        .into())
                }
            }
        })
    }
}
