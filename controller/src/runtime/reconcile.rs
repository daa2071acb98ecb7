//! Carries out plans for AlluxioRuntimes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde_json::{Value, json};

use super::{
    erasure::Written,
    plan::{Annotations, Child, Mirror, Observed, Plan, Schema, Step, plan},
    wish::wish,
};
use crate::{
    api::{AlluxioRuntime, Preload, PreloadSpec, PreloadWish, annotation},
    preload::reconcile::{FINALIZER, ReconcileError},
    stores::Stores,
    writer::{Part, Writer},
};

/// When the API server drops our field, what it holds is looked at again after this time.
const AFTER_A_DROP: Duration = Duration::from_secs(1);

/// `spec.data.preload` of each runtime as last seen, by uid: Fluid may erase it before it can be recorded.
#[derive(Clone, Debug, Default)]
pub struct Wishes(Arc<Mutex<HashMap<String, PreloadWish>>>);

impl Wishes {
    /// Called for every state of a runtime that the watch brings, also for those that nobody reconciles.
    pub fn note(&self, runtime: &AlluxioRuntime) {
        let (Some(uid), Some(wish)) = (runtime.uid(), &runtime.spec.data.preload) else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, wish.clone());
    }

    pub fn forget(&self, runtime: &AlluxioRuntime) {
        if let Some(uid) = runtime.uid() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        }
    }

    /// Forgets all others: a list shows what is gone.
    pub fn retain(&self, runtimes: &[Arc<AlluxioRuntime>]) {
        let uids: HashSet<_> = runtimes.iter().filter_map(|runtime| runtime.uid()).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| uids.contains(uid));
    }

    fn get(&self, runtime: &AlluxioRuntime) -> Option<PreloadWish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&runtime.uid()?).cloned()
    }
}

/// What reconciling needs, and remembers of each runtime.
#[derive(Debug)]
pub struct Context {
    pub writer: Writer,
    pub stores: Stores,
    pub wishes: Wishes,
    pub resync: Duration,
    pub written: Mutex<HashMap<ObjectRef<AlluxioRuntime>, Written>>,
}

impl Context {
    fn written(&self, key: &ObjectRef<AlluxioRuntime>) -> Option<Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Drops what is known of runtimes that are gone.
    pub fn retain(&self, mut exists: impl FnMut(&ObjectRef<AlluxioRuntime>) -> bool) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| exists(key));
    }
}

/// Brings one AlluxioRuntime as far as it can go now. Where nobody opted in, nothing begins.
pub async fn reconcile(
    runtime: Arc<AlluxioRuntime>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let namespace = runtime.namespace().unwrap_or_default();
    let key = ObjectRef::from_obj(&*runtime);
    let child = context.stores.preloads.get(&ObjectRef::new(&runtime.name_any()).within(&namespace));
    let written = context.written(&key);
    let said = said(&context, &runtime, child.as_deref());
    let next = observe_and_plan(&context, &runtime, child.as_deref(), said.as_ref(), written.as_ref());
    // Where nothing erases it, it is in the spec.
    let kept = said.filter(|_| context.stores.schema != Schema::Standalone);
    tracing::debug!(runtime = %key, ?next, "planned");
    let preloads = context.writer.namespaced(&namespace);
    match next.step {
        Step::Keep => {}
        Step::Create(spec) => {
            match context.writer.create(&preloads, &new_preload(&runtime, *spec, kept.as_ref())).await {
                Ok(_) => {}
                // The watch is behind: it will bring it.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Step::Update(spec) => {
            if let Some(child) = &child {
                context.writer.merge(&preloads, &**child, changed(&spec, kept.as_ref())).await?;
            }
        }
        Step::Delete => {
            if let Some(child) = &child {
                context.writer.delete(&preloads, &**child).await?;
            }
        }
    }
    let mut dropped = false;
    let runtimes: Api<AlluxioRuntime> = context.writer.namespaced(&namespace);
    if let Some(annotations) = &next.annotations {
        context.writer.apply(&runtimes, &runtime, Part::Main, annotated(annotations)).await?;
    }
    if let Some(mirror) = next.mirror {
        if context.stores.schema != Schema::Stock {
            let shown = context.writer.apply(&runtimes, &runtime, Part::Status, mirrored(&mirror)).await?;
            // A CRD that was patched a moment ago may still drop the field, and then no change will wake us.
            dropped = shown.status.is_none_or(|status| status.preload_status != Some(mirror.status));
        }
        let memory = Written::next(written.as_ref(), mirror, Timestamp::now());
        context.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key, memory);
        let notices: Vec<_> = next.notice.into_iter().collect();
        context.writer.tell(&runtime.object_ref(&()), &notices).await;
    }
    if dropped {
        return Ok(Action::requeue(AFTER_A_DROP));
    }
    let pause =
        next.again_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
    Ok(Action::requeue(pause.unwrap_or(context.resync).min(context.resync)))
}

/// spec.data.preload as it is; where Fluid has erased it, as it was, known from an earlier look, from the
/// annotation of the runtime, or from that of its Preload.
fn said(context: &Context, runtime: &AlluxioRuntime, child: Option<&Preload>) -> Option<PreloadWish> {
    let owned = child.filter(|child| is_owned(child, runtime));
    (runtime.spec.data.preload.clone())
        .or_else(|| context.wishes.get(runtime))
        .or_else(|| decode(runtime.annotations()))
        .or_else(|| decode(owned?.annotations()))
}

fn is_owned(preload: &Preload, runtime: &AlluxioRuntime) -> bool {
    preload.owner_references().iter().any(|owner| Some(&owner.uid) == runtime.uid().as_ref())
}

fn observe_and_plan(
    context: &Context,
    runtime: &AlluxioRuntime,
    child: Option<&Preload>,
    said: Option<&PreloadWish>,
    written: Option<&Written>,
) -> Plan {
    let annotations = runtime.annotations();
    plan(&Observed {
        deleting: runtime.metadata.deletion_timestamp.is_some(),
        opted_in: context.stores.is_opted_in(&runtime.namespace().unwrap_or_default()),
        schema: context.stores.schema,
        wish: wish(&runtime.name_any(), &runtime.spec, annotations, said),
        spec: said,
        recorded: decode(annotations),
        status: runtime.status.as_ref(),
        annotated: annotations.get(annotation::STATUS).map(String::as_str),
        child: child.map(|preload| {
            let status = preload.status.clone().unwrap_or_default();
            Child {
                owned: is_owned(preload, runtime),
                deleting: preload.metadata.deletion_timestamp.is_some(),
                spec: preload.spec.clone(),
                phase: status.phase,
                percent: status.progress.map(|progress| progress.percent),
                message: status.message,
            }
        }),
        written,
        now: Timestamp::now(),
    })
}

fn new_preload(runtime: &AlluxioRuntime, spec: PreloadSpec, said: Option<&PreloadWish>) -> Preload {
    let mut preload = Preload::new(&runtime.name_any(), spec);
    preload.metadata = ObjectMeta {
        name: Some(runtime.name_any()),
        namespace: runtime.namespace(),
        annotations: said.map(|said| [(annotation::SPEC.to_owned(), encode(said))].into()),
        finalizers: Some(vec![FINALIZER.to_owned()]),
        owner_references: Some(vec![OwnerReference {
            api_version: AlluxioRuntime::api_version(&()).into_owned(),
            kind: AlluxioRuntime::kind(&()).into_owned(),
            name: runtime.name_any(),
            uid: runtime.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    };
    preload
}

/// The spec as it should be, and nothing that is not in it.
fn changed(spec: &PreloadSpec, said: Option<&PreloadWish>) -> Value {
    let mut fields = serde_json::to_value(spec).unwrap_or(Value::Null);
    let optional =
        [("", "timeout"), ("", "reverifyInterval"), ("", "maxBytesPerSecond"), ("/runtimeRef", "workers")];
    for (object, optional) in optional {
        if let Some(Value::Object(object)) = fields.pointer_mut(object) {
            object.entry(optional).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "annotations": { annotation::SPEC: said.map(encode) } }, "spec": fields })
}

fn annotated(annotations: &Annotations) -> Value {
    let mut fields = serde_json::Map::new();
    if let Some(status) = annotations.status {
        fields.insert(annotation::STATUS.to_owned(), json!(status));
    }
    if let Some(spec) = &annotations.spec {
        fields.insert(annotation::SPEC.to_owned(), json!(encode(spec)));
    }
    json!({ "metadata": { "annotations": fields } })
}

fn mirrored(mirror: &Mirror) -> Value {
    let mut status = json!({ "preloadStatus": mirror.status });
    if !mirror.progress.is_empty() {
        status["preloadProgress"] = json!(mirror.progress);
    }
    json!({ "status": status })
}

fn encode(wish: &PreloadWish) -> String {
    serde_json::to_string(wish).unwrap_or_default()
}

fn decode(annotations: &BTreeMap<String, String>) -> Option<PreloadWish> {
    annotations.get(annotation::SPEC).and_then(|text| serde_json::from_str(text).ok())
}
