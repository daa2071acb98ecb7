//! Carries out plans for Preloads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    gates::Discovery,
    observe::Observer,
    pace,
    plan::{Finalizer, Observed, Plan, Subject, plan},
    status::Notice,
};
use crate::{
    api::{Phase, Preload, PreloadStatus},
    metrics::Metrics,
    sidecar::{Key, Sidecars},
    stores::{Stores, newer},
    writer::{Part, WriteError, Writer},
};

/// Keeps a Preload until its loads are cancelled.
pub const FINALIZER: &str = "preload.dev/cancel";
/// A plan needs at most: finalizer, status, orders. More rounds mean that somebody else writes too.
const ROUNDS: u32 = 5;

/// It has to be tried again.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct ReconcileError(#[from] pub WriteError);

/// What reconciling needs, and remembers of each Preload.
#[derive(Debug)]
pub struct Context {
    pub writer: Writer,
    pub stores: Stores,
    pub sidecars: Sidecars,
    pub metrics: Metrics,
    pub settings: Settings,
    pub memory: Memory,
}

/// Chosen by the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    pub discovery: Discovery,
    /// Annotation of a master's pod that names the port of its sidecar.
    pub port_annotation: String,
    pub deletion_patience: Duration,
    /// Everything is looked at again after this time, even if nothing happened.
    pub resync: Duration,
}

/// What we wrote last, which the watch may not have brought back yet.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<Key, Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// Until the watch has brought it back.
    written: Option<Arc<Preload>>,
    written_at: Option<Instant>,
    /// When a change was noticed that has not been written yet.
    noticed: Option<Instant>,
    phase: Phase,
}

impl Memory {
    /// The newest state that is known, and when we wrote last.
    fn newest(&self, key: &Key, cached: Arc<Preload>) -> (Arc<Preload>, Option<Instant>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(remembered) = memory.get_mut(key) else { return (cached, None) };
        let Some(written) = &remembered.written else { return (cached, remembered.written_at) };
        let newest = newer(cached.clone(), written.clone());
        if Arc::ptr_eq(&newest, &cached) {
            // The watch has caught up.
            remembered.written = None;
        }
        (newest, remembered.written_at)
    }

    fn wrote(&self, key: &Key, mut object: Preload) {
        object.metadata.managed_fields = None;
        let (phase, now) = (phase(&object), Instant::now());
        let remembered =
            Remembered { phase, written: Some(Arc::new(object)), written_at: Some(now), noticed: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), remembered);
    }

    fn saw(&self, key: &Key, object: &Preload) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.entry(key.clone()).or_default().phase = phase(object);
    }

    /// How long ago the change was noticed that is still to be written; `None`: there is none.
    fn notice(&self, key: &Key, change: bool) -> Option<Duration> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = memory.entry(key.clone()).or_default();
        remembered.noticed = if change { remembered.noticed.or_else(|| Some(Instant::now())) } else { None };
        remembered.noticed.map(|at| at.elapsed())
    }

    fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Drops what is known of Preloads that are gone.
    pub fn retain(&self, mut exists: impl FnMut(&Key) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| exists(key));
    }

    /// How many Preloads are in each phase.
    #[must_use]
    pub fn phases(&self) -> HashMap<Phase, u32> {
        let mut phases = HashMap::new();
        for remembered in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *phases.entry(remembered.phase).or_default() += 1;
        }
        phases
    }

    fn loading(&self) -> u32 {
        self.phases().get(&Phase::Loading).copied().unwrap_or(0)
    }
}

fn phase(preload: &Preload) -> Phase {
    preload.status.as_ref().map_or(Phase::Pending, |status| status.phase)
}

/// Brings one Preload as far as it can go now. People are told last: no load waits for that.
pub async fn reconcile(preload: Arc<Preload>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let mut notices = Vec::new();
    let result = advance(&preload, &context, &mut notices).await;
    context.writer.tell(&preload.object_ref(&()), &notices).await;
    result
}

/// Writes and orders what the plan says, until it says nothing more; `notices` tell of what was written.
async fn advance(
    preload: &Arc<Preload>,
    context: &Context,
    notices: &mut Vec<Notice>,
) -> Result<Action, ReconcileError> {
    let key = Key::from_obj(&**preload);
    for _ in 0..ROUNDS {
        let (current, written_at) = context.memory.newest(&key, preload.clone());
        context.memory.saw(&key, &current);
        let next = observe_and_plan(context, &key, &current);
        tracing::debug!(preload = %key, ?next, "planned");
        let api = api(context, &current);
        match next.finalizer {
            Finalizer::Keep => {}
            Finalizer::Add => {
                let Some(written) = context.writer.set_finalizer(&api, &*current, FINALIZER, true).await?
                else {
                    return Ok(Action::await_change());
                };
                context.memory.wrote(&key, written);
                continue;
            }
            Finalizer::Remove => {
                notices.extend(next.notices);
                context.sidecars.follow(&key, Vec::new());
                context.writer.set_finalizer(&api, &*current, FINALIZER, false).await?;
                context.memory.forget(&key);
                return Ok(Action::await_change());
            }
        }
        let noticed = context.memory.notice(&key, next.status.is_some()).unwrap_or_default();
        let Some(status) = &next.status else {
            context.sidecars.follow(&key, next.orders);
            return Ok(Action::requeue(until(next.again_at, context.settings.resync)));
        };
        let old = current.status.clone().unwrap_or_default();
        let since = written_at.map(|at| at.elapsed());
        let wait = pace::wait(&old, status, since, noticed, context.memory.loading());
        if !wait.is_zero() {
            context.sidecars.follow(&key, next.orders);
            return Ok(Action::requeue(wait));
        }
        let written = write_status(context, &api, &current, &old, status).await?;
        context.memory.wrote(&key, written);
        notices.extend(next.notices);
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

fn observe_and_plan(context: &Context, key: &Key, preload: &Preload) -> Plan {
    let namespace = preload.namespace().unwrap_or_default();
    let observer = Observer { stores: &context.stores, namespace: &namespace, settings: &context.settings };
    let cluster = observer.cluster(&preload.spec.runtime_ref);
    let seen = context.sidecars.seen(key);
    let status = preload.status.clone().unwrap_or_default();
    let (name, uid) = (preload.name_any(), preload.uid().unwrap_or_default());
    plan(&Observed {
        subject: Subject {
            namespace: &namespace,
            name: &name,
            uid: &uid,
            generation: preload.metadata.generation.unwrap_or_default(),
            deleted: preload.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            finalizer: preload.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            spec: &preload.spec,
            status: &status,
        },
        cluster: &cluster,
        seen: &seen,
        now: Timestamp::now(),
        deletion_patience: context.settings.deletion_patience,
    })
}

fn api(context: &Context, preload: &Preload) -> Api<Preload> {
    context.writer.namespaced(&preload.namespace().unwrap_or_default())
}

async fn write_status(
    context: &Context,
    api: &Api<Preload>,
    preload: &Preload,
    old: &PreloadStatus,
    status: &PreloadStatus,
) -> Result<Preload, WriteError> {
    let fields = json!({ "status": serde_json::to_value(status).unwrap_or(Value::Null) });
    // Nobody else writes the status; should another controller have, its plan is the newer one.
    let same = |now: &Preload| now.status.clone().unwrap_or_default() == *old;
    context.writer.apply_if(api, preload, Part::Status, fields, same).await
}

/// Until a point in time, at most `longest`.
fn until(time: Option<Timestamp>, longest: Duration) -> Duration {
    let Some(time) = time else { return longest };
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default().min(longest)
}
