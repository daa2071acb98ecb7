//! What the cluster's CRDs can hold: found out by watching exactly two of them.

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt, ResourceExt,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use tokio::sync::watch;

use crate::{
    api::{AlluxioRuntime, Preload},
    runtime::plan::Schema,
};

/// What the two CRDs say; `None` until it is known.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// Preload is there and served.
    pub preload: watch::Receiver<Option<bool>>,
    pub runtime: watch::Receiver<Option<Schema>>,
}

/// Keeps both current until it is dropped.
pub fn watch(client: &Client) -> (Schemas, impl Future<Output = ()> + Send + use<>) {
    let (preload_sender, preload) = watch::channel(None);
    let (runtime_sender, runtime) = watch::channel(None);
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let preloads = follow(api.clone(), Preload::crd_name(), preload_sender, |crd| crd.is_some());
    let runtimes = follow(api, AlluxioRuntime::crd_name(), runtime_sender, schema);
    (Schemas { preload, runtime }, async move {
        tokio::join!(preloads, runtimes);
    })
}

async fn follow<T: PartialEq + std::fmt::Debug>(
    api: Api<CustomResourceDefinition>,
    name: &str,
    sender: watch::Sender<Option<T>>,
    judge: impl Fn(Option<&CustomResourceDefinition>) -> T,
) {
    let mut states = std::pin::pin!(watch_object(api, name).default_backoff());
    while let Some(state) = states.next().await {
        match state {
            Ok(crd) => {
                let found = judge(crd.as_ref().filter(|crd| is_established(crd)));
                sender.send_if_modified(|current| {
                    let changed = current.as_ref() != Some(&found);
                    if changed {
                        tracing::info!(crd = name, ?found, "the schema was looked at");
                        *current = Some(found);
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!(
                crd = name,
                error = &error as &dyn std::error::Error,
                "the CRD cannot be watched; trying again"
            ),
        }
    }
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Established" && c.status == "True")
        && crd.metadata.deletion_timestamp.is_none()
}

/// Which of Fluid's AlluxioRuntimes this is, or ours.
fn schema(crd: Option<&CustomResourceDefinition>) -> Schema {
    let Some(crd) = crd else { return Schema::Missing };
    let version = crd.spec.versions.iter().find(|version| version.name == "v1alpha1" && version.served);
    let status = version
        .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref())
        .and_then(|schema| schema.properties.as_ref()?.get("status"));
    let Some(status) = status else {
        tracing::warn!(crd = crd.name_any(), "no status in the schema of v1alpha1");
        return Schema::Missing;
    };
    let has_ours = status.properties.as_ref().is_some_and(|fields| fields.contains_key("preloadStatus"));
    let of_fluid = status.required.as_ref().is_some_and(|required| !required.is_empty());
    match (has_ours, of_fluid) {
        (false, _) => Schema::Stock,
        (true, true) => Schema::Patched,
        (true, false) => Schema::Standalone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_tells_who_made_it() {
        let ours = AlluxioRuntime::crd();
        assert_eq!(schema(None), Schema::Missing);
        assert_eq!(schema(Some(&ours)), Schema::Standalone);
        let mut fluid = ours.clone();
        let status = fluid.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
        let status = status.properties.as_mut().unwrap().get_mut("status").unwrap();
        status.required = Some(vec!["valueFile".into()]);
        assert_eq!(schema(Some(&fluid)), Schema::Patched);
        let status = fluid.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
        status
            .properties
            .as_mut()
            .unwrap()
            .get_mut("status")
            .unwrap()
            .properties
            .as_mut()
            .unwrap()
            .remove("preloadStatus");
        assert_eq!(schema(Some(&fluid)), Schema::Stock);
    }
}
