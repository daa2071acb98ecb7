//! A Secret of the API server as a pod sees it: the kubelet's part, for sidecars that run without one.
//!
//! Invariant: what was mounted stays when the Secret is deleted.

use crate::sandbox::Sandbox;
use crate::secret::Secret;
use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Follows the Secret until it is dropped.
#[derive(Debug)]
pub struct SecretVolume {
    mounted: Arc<Secret>,
    task: JoinHandle<()>,
}

impl SecretVolume {
    /// Mounted at once, as an optional Secret is; empty until there is one.
    pub fn mount(sandbox: &Sandbox, client: &kube::Client, namespace: &str, name: &str) -> Result<Self> {
        let mounted = Arc::new(Secret::new(sandbox)?);
        let secrets: Api<v1::Secret> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let target = mounted.clone();
        let task = tokio::spawn(async move {
            let mut changes = watcher(secrets, config).default_backoff().applied_objects().boxed();
            while let Some(change) = changes.next().await {
                let put = change.map_err(anyhow::Error::from).and_then(|secret| {
                    let data = secret.data.unwrap_or_default();
                    let keys: Vec<_> = data.iter().map(|(key, value)| (key.as_str(), &value.0[..])).collect();
                    target.put(&keys)
                });
                if let Err(error) = put {
                    println!("the Secret of {} cannot be mounted: {error:#}", target.directory().display());
                }
            }
        });
        Ok(Self { mounted, task })
    }

    /// Where it is mounted.
    pub fn directory(&self) -> &Path {
        self.mounted.directory()
    }

    /// A file of it, as of now.
    pub fn read(&self, key: &str) -> Result<String> {
        fs::read_to_string(self.directory().join(key)).with_context(|| format!("read {key} of the Secret"))
    }
}

impl Drop for SecretVolume {
    fn drop(&mut self) {
        self.task.abort();
    }
}
