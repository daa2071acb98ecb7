//! Runtimes of one namespace with a sidecar each, which are played, and the controller that is measured.

use crate::Bench;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use nix::sys::signal::Signal;
use preload_tests::stub::{Behaviour, Stub};
use preload_tests::{AuditEvent, Authority, Controller, ControllerSetup, Fluid, Kubernetes, wait};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Requests of ours that are under way at once.
pub(super) const AT_ONCE: usize = 16;
/// For thousands of runtimes; past this something is wrong.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
pub(super) const WORKERS: i32 = 2;

#[derive(Debug)]
pub(super) struct Fleet<'a> {
    kubernetes: &'a Kubernetes,
    namespace: String,
    pub(super) controller: Controller<'a>,
    authority: Authority,
    pub(super) preloads: Tally,
    pub(super) runtimes: Tally,
}

/// Writes of the controller.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// For each runtime and its Preload, but for those of mere progress.
    pub(super) objects: Vec<f64>,
    pub(super) progress: usize,
    pub(super) events: usize,
    /// Refused, because the object had changed.
    pub(super) conflicts: usize,
}

impl<'a> Fleet<'a> {
    pub(super) async fn start(kubernetes: &'a Kubernetes, namespace: String) -> Result<Self> {
        let client = kubernetes.client().await?;
        let preloads = Tally::start(&client, &namespace, "preload.dev", "Preload");
        let runtimes = Tally::start(&client, &namespace, "data.fluid.io", "AlluxioRuntime");
        // As in production; the harness has a shorter one.
        let authority = Authority::new(&kubernetes.sandbox().folder("authority")?)?;
        let setup = ControllerSetup::new(kubernetes, &namespace).argument("--lease-duration=15s");
        let setup = setup.argument("--tls-ca").argument(authority.certificate());
        let controller = setup.argument("--log=warn").start(kubernetes).await?;
        Ok(Self { kubernetes, namespace, controller, authority, preloads, runtimes })
    }

    pub(super) fn sidecars(&self, count: usize, loading: Duration) -> Result<Stub> {
        let behaviours = std::iter::repeat_n(Behaviour::loads_within(loading), count);
        // Each would have its own; what it names is the same for the controller.
        let identity = self.authority.identity(&[&format!("*.{}.preload.dev", self.namespace)])?;
        Stub::start(self.kubernetes.sandbox(), behaviours, Some(&identity))
    }

    /// Creates runtimes with these names, whose masters are ready, and their workers too if `ready`.
    pub(super) async fn create(&self, names: &[String], stub: &Stub, ready: bool) -> Result<Vec<Fluid>> {
        let spec = json!({
            "replicas": WORKERS,
            "data": { "replicas": 1, "preload": { "enabled": true, "path": "/data" } },
        });
        stream::iter(names.iter().enumerate())
            .map(async |(number, name)| {
                let fluid = Fluid::new(self.kubernetes, &self.namespace, name).await?;
                fluid.create(spec.clone(), &[]).await?;
                fluid.create_master_pod(&stub.address(number)?, true).await?;
                match ready {
                    true => fluid.report_ready(WORKERS).await?,
                    false => fluid.report("Ready", "NotReady", 0, WORKERS).await?,
                }
                anyhow::Ok(fluid)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Waits until all of these are Loaded.
    pub(super) async fn loaded(&self, bench: &Bench, names: &[String]) -> Result<()> {
        let mut said = 0;
        wait::until("all to be Loaded", LIMIT, async || {
            let loaded = self.runtimes.count(names, |status| status["preloadStatus"] == "Loaded");
            if loaded >= said + 250 {
                said = loaded;
                bench.say(&format!("  {loaded} are Loaded"));
            }
            ensure!(loaded == names.len(), "{loaded} of {} are; {}", names.len(), self.controller.log_end());
            Ok(Some(()))
        })
        .await
    }

    /// Ends the controller, and waits until all that it asked for is in the audit log.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.controller.end(Signal::SIGTERM).await?;
        // Lines are written in the order of the answers: after ours there is none of the controller.
        let mark = format!("mark-{}", self.kubernetes.sandbox().number());
        Fluid::new(self.kubernetes, &self.namespace, &mark).await?.runtimes().get_opt(&mark).await?;
        wait::until("the audit log", wait::LIMIT, async || {
            let seen = self.kubernetes.audit()?;
            Ok(seen.iter().any(|event: &AuditEvent| event.name == mark).then_some(()))
        })
        .await
    }

    /// What the controller has written about these since.
    pub(super) fn writes(&self, names: &[String], since: Timestamp) -> Result<Writes> {
        let mut objects: HashMap<_, f64> = names.iter().map(|name| (name.as_str(), 0.0)).collect();
        let mut writes = Writes::default();
        let all = self.kubernetes.audit()?;
        let own = all.iter().filter(|event| {
            event.namespace == self.namespace
                && event.user_agent.starts_with("preload-controller/")
                && event.received.0 >= since
                && ["create", "update", "patch", "delete"].contains(&event.verb.as_str())
        });
        for event in own {
            match (event.resource.as_str(), event.code) {
                ("events", _) => {
                    let about = event.name.rsplit_once('.').map_or("", |(about, _)| about);
                    writes.events += usize::from(objects.contains_key(about));
                }
                ("preloads" | "alluxioruntimes", code) => match objects.get_mut(event.name.as_str()) {
                    Some(_) if code == 409 => writes.conflicts += 1,
                    Some(count) => *count += 1.0,
                    None => {}
                },
                _ => {}
            }
        }
        for tally in [&self.preloads, &self.runtimes] {
            for (name, object) in tally.objects().iter() {
                if let Some(count) = objects.get_mut(name.as_str()) {
                    *count -= object.progress as f64;
                    writes.progress += object.progress;
                }
            }
        }
        writes.objects = objects.into_values().collect();
        writes.objects.sort_by(f64::total_cmp);
        Ok(writes)
    }
}

/// What a watch has shown of the objects of one kind.
#[derive(Debug)]
pub(super) struct Tally {
    objects: Arc<Mutex<HashMap<String, Object>>>,
    watching: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Object {
    status: Value,
    /// Changes of the figures alone, with the words that go with them.
    progress: usize,
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Tally {
    fn start(client: &Client, namespace: &str, group: &str, kind: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1alpha1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let objects = Arc::<Mutex<HashMap<String, Object>>>::default();
        let told = objects.clone();
        let watching = tokio::spawn(async move {
            let changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                // A watch that broke is begun anew.
                let Ok(mut changed) = change else { continue };
                let status = changed.data["status"].take();
                let mut objects = told.lock().unwrap_or_else(PoisonError::into_inner);
                let object = objects.entry(changed.name_any()).or_default();
                object.progress += usize::from(is_progress(&object.status, &status));
                object.status = status;
            }
        });
        Self { objects, watching }
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts progress anew.
    pub(super) fn reset(&self) {
        self.objects().values_mut().for_each(|object| object.progress = 0);
    }

    /// How many of these have such a status.
    pub(super) fn count(&self, names: &[String], wanted: impl Fn(&Value) -> bool) -> usize {
        let objects = self.objects();
        names.iter().filter(|name| objects.get(*name).is_some_and(|object| wanted(&object.status))).count()
    }
}

/// Status of a condition.
pub(super) fn condition<'a>(status: &'a Value, type_: &str) -> &'a str {
    let all = status["conditions"].as_array().into_iter().flatten();
    all.filter(|condition| condition["type"] == type_)
        .filter_map(|condition| condition["status"].as_str())
        .next()
        .unwrap_or_default()
}

fn is_progress(old: &Value, new: &Value) -> bool {
    let rest = |status: &Value| {
        let mut rest = status.clone();
        if let Some(fields) = rest.as_object_mut() {
            fields.retain(|key, _| {
                !["conditions", "message", "preloadProgress", "progress", "reason"].contains(&key.as_str())
            });
        }
        let conditions = ["MasterReady", "SidecarReachable", "WorkersReady", "MetadataLoaded", "Loaded"];
        (rest, conditions.map(|type_| condition(status, type_).to_owned()))
    };
    ["preloadProgress", "progress"].into_iter().any(|key| old[key] != new[key]) && rest(old) == rest(new)
}

pub(super) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:04}")).collect()
}

/// Waits until each load that was watched before is watched anew.
pub(super) async fn watched_again(stub: &Stub, before: &HashMap<String, u64>) -> Result<()> {
    wait::until("every sidecar to be watched again", LIMIT, async || {
        let now = stub.watches();
        let missing = before.iter().filter(|(id, count)| now.get(*id) <= Some(count)).count();
        ensure!(missing == 0, "{missing} are not");
        Ok(Some(()))
    })
    .await
    .context("after a cold start")
}
