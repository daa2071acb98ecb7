//! Every state of the objects of one namespace that the API server has shown, with the time.
//!
//! It is filled by a watch of its own, so a state that lasts a millisecond is in it too.

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

use crate::wait;

/// One state of one object.
#[derive(Debug, Clone)]
pub struct Shown {
    pub at: Instant,
    pub name: String,
    pub deleted: bool,
    /// The whole object.
    pub object: Value,
}

impl Shown {
    fn of(object: &DynamicObject, deleted: bool) -> Self {
        let (at, name) = (Instant::now(), object.name_any());
        Self { at, name, deleted, object: serde_json::to_value(object).unwrap_or_default() }
    }

    /// A text in it, such as `/status/phase`; empty where it is missing.
    pub fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number in it; 0 where it is missing.
    pub fn number(&self, pointer: &str) -> i64 {
        self.object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Status and reason of a condition.
    pub fn condition(&self, type_: &str) -> (String, String) {
        let conditions = self.object.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
        let word = |key: &str| found.and_then(|c| c[key].as_str()).unwrap_or_default().to_owned();
        (word("status"), word("reason"))
    }
}

/// Objects of one kind in one namespace, from when it was started on.
#[derive(Debug)]
pub struct Course {
    kind: &'static str,
    shown: Arc<Mutex<Vec<Shown>>>,
    watching: JoinHandle<()>,
}

impl Drop for Course {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Course {
    pub async fn of_preloads(client: &Client, namespace: &str) -> Result<Self> {
        Self::start(client, namespace, GroupVersionKind::gvk("preload.dev", "v1alpha1", "Preload"), "Preload")
            .await
    }

    pub async fn of_runtimes(client: &Client, namespace: &str) -> Result<Self> {
        let kind = GroupVersionKind::gvk("data.fluid.io", "v1alpha1", "AlluxioRuntime");
        Self::start(client, namespace, kind, "AlluxioRuntime").await
    }

    pub async fn of_deployments(client: &Client, namespace: &str) -> Result<Self> {
        let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
        Self::start(client, namespace, kind, "Deployment").await
    }

    async fn start(
        client: &Client,
        namespace: &str,
        gvk: GroupVersionKind,
        kind: &'static str,
    ) -> Result<Self> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&gvk));
        let shown = Arc::<Mutex<Vec<Shown>>>::default();
        // The first watch begins where this list ends: nothing is missed.
        let list = api.list(&Default::default()).await.context("list")?;
        let mut version = list.metadata.resource_version.unwrap_or_default();
        let recorded = shown.clone();
        let watching = tokio::spawn(async move {
            loop {
                // An API server that is being restarted: go on from the last version.
                if let Ok(stream) = api.watch(&WatchParams::default(), &version).await {
                    let mut stream = std::pin::pin!(stream);
                    while let Some(Ok(event)) = stream.next().await {
                        let (object, deleted) = match event {
                            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                            WatchEvent::Deleted(object) => (object, true),
                            WatchEvent::Bookmark(_) => continue,
                            WatchEvent::Error(_) => {
                                // Too old: what happened in between is lost, what is there now is not.
                                let Ok(list) = api.list(&Default::default()).await else { break };
                                version = list.metadata.resource_version.clone().unwrap_or_default();
                                recorded
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .extend(list.items.iter().map(|object| Shown::of(object, false)));
                                break;
                            }
                        };
                        version = object.resource_version().unwrap_or_default();
                        let state = Shown::of(&object, deleted);
                        recorded.lock().unwrap_or_else(PoisonError::into_inner).push(state);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Ok(Self { kind, shown, watching })
    }

    /// Everything so far, oldest first.
    pub fn all(&self) -> Vec<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The states of one object.
    pub fn of(&self, name: &str) -> Vec<Shown> {
        let mut all = self.all();
        all.retain(|shown| shown.name == name);
        all
    }

    /// The first state of an object, from now or before, for which `condition` holds.
    pub async fn until(&self, name: &str, condition: impl Fn(&Shown) -> bool) -> Result<Shown> {
        wait::until(&format!("{} {name}", self.kind), wait::LIMIT, async || {
            let states = self.of(name);
            if let Some(found) = states.iter().find(|shown| condition(shown)) {
                return Ok(Some(found.clone()));
            }
            let last = states.last().map(|shown| shown.object["status"].to_string());
            bail!("last seen: {}", last.unwrap_or_default())
        })
        .await
    }

    /// The values that a text took, one after the other, without repetitions.
    pub fn values(&self, name: &str, pointer: &str) -> Vec<String> {
        let mut values: Vec<_> = self.of(name).iter().map(|shown| shown.text(pointer).to_owned()).collect();
        values.dedup();
        values
    }

    /// Fails if the controller wrote one object more often than once a second. The write before a start is not
    /// counted: a load should not wait for it.
    pub fn assert_paced(&self, name: &str) -> Result<()> {
        let ours = |shown: &Shown| match self.kind {
            "Preload" => vec![shown.object.pointer("/status").cloned()],
            _ => ["/status/preloadStatus", "/status/preloadProgress"]
                .map(|p| shown.object.pointer(p).cloned())
                .into(),
        };
        let submitted = |shown: &Shown| shown.object.pointer("/status/submission").is_some();
        let mut written: Option<Shown> = None;
        let mut states = self.of(name).into_iter();
        let Some(mut before) = states.next() else { return Ok(()) };
        for shown in states {
            if ours(&before) == ours(&shown) {
                continue;
            }
            if let Some(last) = written.filter(|last| submitted(last) || !submitted(&shown)) {
                let between = shown.at.duration_since(last.at);
                // What reaches us is jittered by the watch.
                ensure!(
                    between > Duration::from_millis(700),
                    "{} {name} was written twice within {between:?}: {:?} then {:?}",
                    self.kind,
                    ours(&last),
                    ours(&shown)
                );
            }
            written = Some(shown.clone());
            before = shown;
        }
        Ok(())
    }
}
