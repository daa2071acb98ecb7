//! Caches of what the API server holds in one scope, a namespace or all of them, kept current by watches.
//!
//! One watch per kind feeds both reconcilers. A change touches the objects that depend on it, and after a list,
//! which may have missed deletions, everything.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures_util::StreamExt;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Namespace, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{AlluxioRuntime, Preload, RuntimeKind, RuntimeRef},
    runtime::{plan::Schema, reconcile::Wishes},
    sidecar::Key,
};

/// Label of a namespace whose AlluxioRuntimes are preloaded.
pub const OPT_IN: &str = "preload.dev/enabled";
/// Masters' pods, and StatefulSets of masters and workers: as Fluid and Alluxio's chart label them.
const MASTERS: &str = "role=alluxio-master";
const MASTERS_AND_WORKERS: &str = "role in (alluxio-master,alluxio-worker)";

/// The namespaces that are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All; AlluxioRuntimes only where the namespace is labelled.
    All,
    /// One, which the operator has chosen.
    Namespace(String),
}

impl Scope {
    /// For metrics: the namespace, or nothing.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::All => "",
            Self::Namespace(namespace) => namespace,
        }
    }

    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// Read side of the caches. Clones share them.
#[derive(Clone, Debug)]
pub struct Stores {
    pub preloads: Store<Preload>,
    pub runtimes: Store<AlluxioRuntime>,
    pub pods: Store<Pod>,
    pub sets: Store<StatefulSet>,
    /// None: every namespace of the scope is opted in.
    namespaces: Option<Store<PartialObjectMeta<Namespace>>>,
    /// What AlluxioRuntimes can hold.
    pub schema: Schema,
}

impl Stores {
    /// AlluxioRuntimes of this namespace may be touched.
    #[must_use]
    pub fn is_opted_in(&self, namespace: &str) -> bool {
        let Some(namespaces) = &self.namespaces else { return true };
        namespaces
            .get(&ObjectRef::new(namespace))
            .is_some_and(|namespace| namespace.labels().get(OPT_IN).is_some_and(|value| value == "true"))
    }

    /// Waits until every cache is filled.
    pub async fn ready(&self) {
        // An error: the writers are gone, because the scope is stopping.
        let _ = self.preloads.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.sets.wait_until_ready().await;
        if let Some(namespaces) = &self.namespaces {
            let _ = namespaces.wait_until_ready().await;
        }
        if self.schema != Schema::Missing {
            let _ = self.runtimes.wait_until_ready().await;
        }
    }
}

/// Objects to look at.
#[derive(Clone, Debug)]
pub struct Queues {
    pub preloads: mpsc::UnboundedSender<Key>,
    pub runtimes: mpsc::UnboundedSender<ObjectRef<AlluxioRuntime>>,
}

impl Queues {
    fn preload(&self, preload: &Preload) {
        // An error: the scope is stopping.
        let _ = self.preloads.send(ObjectRef::from_obj(preload));
    }

    fn runtime(&self, name: &str, namespace: &str) {
        let _ = self.runtimes.send(ObjectRef::new(name).within(namespace));
    }
}

/// Starts the watches; they end with `stop`.
pub fn start(
    client: &Client,
    scope: &Scope,
    schema: Schema,
    queues: &Queues,
    wishes: &Wishes,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Stores {
    let (preloads, preload_writer) = reflector::store();
    let (runtimes, runtime_writer) = reflector::store();
    let (pods, pod_writer) = reflector::store();
    let (sets, set_writer) = reflector::store();
    let namespaces = (*scope == Scope::All).then(reflector::store::<PartialObjectMeta<Namespace>>);
    let (namespaces, namespace_writer) = namespaces.unzip();
    let stores = Stores { preloads, runtimes, pods, sets, namespaces, schema };
    let watches = Watches { stores: stores.clone(), queues: queues.clone(), wishes: wishes.clone() };
    let spawn = |name: &'static str, task: futures_util::future::BoxFuture<'static, ()>| {
        let stop = stop.clone();
        tasks.spawn(async move {
            if stop.run_until_cancelled(task).await.is_some() {
                tracing::error!(watch = name, "a watch ended by itself");
            }
        });
    };

    let of = watches.clone();
    let config = watcher::Config::default();
    spawn(
        "preloads",
        Box::pin(reflect(
            scope.api(client),
            config.clone(),
            preload_writer,
            |_| {},
            move |change| of.on_preload(change),
        )),
    );
    let of = watches.clone();
    let labelled = config.clone().labels(MASTERS);
    spawn(
        "pods",
        Box::pin(reflect(scope.api(client), labelled, pod_writer, trim_pod, move |change| of.on_pod(change))),
    );
    let of = watches.clone();
    let labelled = config.clone().labels(MASTERS_AND_WORKERS);
    spawn(
        "stateful sets",
        Box::pin(reflect(scope.api(client), labelled, set_writer, trim_set, move |change| of.on_set(change))),
    );
    if let Some(writer) = namespace_writer {
        let of = watches.clone();
        let api = Api::all(client.clone());
        spawn(
            "namespaces",
            Box::pin(reflect(api, config.clone(), writer, |_| {}, move |change| of.on_namespace(change))),
        );
    }
    // Asking for a kind that does not exist fails.
    if schema != Schema::Missing {
        let api = scope.api(client);
        let task = reflect(api, config, runtime_writer, |_| {}, move |change| watches.on_runtime(change));
        spawn("runtimes", Box::pin(task));
    }
    stores
}

/// What a watch tells.
enum Change<'a, K> {
    Seen(&'a K),
    Gone(&'a K),
    /// All are there again after a list.
    Listed,
}

async fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    trim: fn(&mut K),
    mut on_change: impl FnMut(Change<'_, K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let watch = watcher(api, config).default_backoff().modify(move |object| {
        // The largest part of an object, and nobody here reads it.
        object.meta_mut().managed_fields = None;
        trim(object);
    });
    let mut changes = std::pin::pin!(reflector(writer, watch));
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Apply(object)) => on_change(Change::Seen(&object)),
            Ok(watcher::Event::Delete(object)) => on_change(Change::Gone(&object)),
            Ok(watcher::Event::InitDone) => on_change(Change::Listed),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "a watch was interrupted; trying again")
            }
        }
    }
}

/// What follows from changes.
#[derive(Clone)]
struct Watches {
    stores: Stores,
    queues: Queues,
    wishes: Wishes,
}

impl Watches {
    fn on_preload(&self, change: Change<'_, Preload>) {
        match change {
            Change::Seen(preload) | Change::Gone(preload) => {
                self.queues.preload(preload);
                // The runtime of this name owns it, or waits until it is gone.
                self.queues.runtime(&preload.name_any(), &preload.namespace().unwrap_or_default());
            }
            Change::Listed => {
                self.all_preloads();
                self.all_runtimes();
            }
        }
    }

    fn on_runtime(&self, change: Change<'_, AlluxioRuntime>) {
        match change {
            Change::Seen(runtime) => {
                self.wishes.note(runtime);
                self.runtime_changed(runtime);
            }
            Change::Gone(runtime) => {
                self.wishes.forget(runtime);
                self.runtime_changed(runtime);
            }
            Change::Listed => {
                let all = self.stores.runtimes.state();
                self.wishes.retain(&all);
                for runtime in all {
                    self.wishes.note(&runtime);
                }
                self.all_preloads();
                self.all_runtimes();
            }
        }
    }

    fn runtime_changed(&self, runtime: &AlluxioRuntime) {
        let (name, namespace) = (runtime.name_any(), runtime.namespace().unwrap_or_default());
        self.queues.runtime(&name, &namespace);
        self.preloads_of(&namespace, |reference| {
            reference.kind == RuntimeKind::AlluxioRuntime && reference.name == name
        });
    }

    fn on_pod(&self, change: Change<'_, Pod>) {
        match change {
            Change::Seen(pod) | Change::Gone(pod) => {
                let name = pod.name_any();
                let Some((set, _)) = name.rsplit_once('-') else { return };
                self.masters_changed(set, &pod.namespace().unwrap_or_default());
            }
            Change::Listed => self.all_preloads(),
        }
    }

    fn on_set(&self, change: Change<'_, StatefulSet>) {
        match change {
            Change::Seen(set) | Change::Gone(set) => {
                let (name, standalone) = (set.name_any(), self.stores.schema == Schema::Standalone);
                let stem = name.strip_suffix("-worker").or_else(|| name.strip_suffix("-master"));
                self.preloads_of(&set.namespace().unwrap_or_default(), |reference| match reference.kind {
                    RuntimeKind::AlluxioRuntime => standalone && stem == Some(&reference.name),
                    RuntimeKind::StatefulSet => {
                        let masters = reference.name.strip_suffix("-master");
                        reference.name == name
                            || reference.workers.as_ref() == Some(&name)
                            || (masters.is_some() && masters == name.strip_suffix("-worker"))
                    }
                });
            }
            Change::Listed => self.all_preloads(),
        }
    }

    fn on_namespace(&self, change: Change<'_, PartialObjectMeta<Namespace>>) {
        match change {
            Change::Seen(namespace) | Change::Gone(namespace) => {
                let name = namespace.name_any();
                for runtime in self.stores.runtimes.state() {
                    if runtime.namespace().as_deref() == Some(&name) {
                        self.queues.runtime(&runtime.name_any(), &name);
                    }
                }
            }
            Change::Listed => self.all_runtimes(),
        }
    }

    fn masters_changed(&self, set: &str, namespace: &str) {
        self.preloads_of(namespace, |reference| match reference.kind {
            RuntimeKind::StatefulSet => reference.name == set,
            RuntimeKind::AlluxioRuntime => set.strip_suffix("-master") == Some(&reference.name),
        });
    }

    fn preloads_of(&self, namespace: &str, wanted: impl Fn(&RuntimeRef) -> bool) {
        let concerns = |preload: &Preload| {
            preload.namespace().as_deref() == Some(namespace) && wanted(&preload.spec.runtime_ref)
        };
        for preload in self.stores.preloads.state_filter(concerns) {
            self.queues.preload(&preload);
        }
    }

    fn all_preloads(&self) {
        for preload in self.stores.preloads.state() {
            self.queues.preload(&preload);
        }
    }

    fn all_runtimes(&self) {
        for runtime in self.stores.runtimes.state() {
            self.queues.runtime(&runtime.name_any(), &runtime.namespace().unwrap_or_default());
        }
    }
}

/// Only readiness, address and annotations of a pod are read.
fn trim_pod(pod: &mut Pod) {
    pod.spec = None;
    if let Some(status) = &mut pod.status {
        let (pod_ip, conditions) = (status.pod_ip.take(), status.conditions.take());
        *status = k8s_openapi::api::core::v1::PodStatus { pod_ip, conditions, ..Default::default() };
    }
}

/// Only the numbers of a StatefulSet are read.
fn trim_set(set: &mut StatefulSet) {
    if let Some(spec) = &mut set.spec {
        spec.template = Default::default();
        spec.volume_claim_templates = None;
    }
}

/// Newer of two states of one object: ours, as a write returned it, may be ahead of the watch.
pub fn newer<K: Resource<DynamicType = ()>>(cached: Arc<K>, written: Arc<K>) -> Arc<K> {
    // Versions are opaque by contract, numbers in fact; should they not be, the watch wins.
    let version = |object: &K| object.resource_version().and_then(|version| version.parse::<u64>().ok());
    if cached.uid() == written.uid() && version(&written) > version(&cached) { written } else { cached }
}
