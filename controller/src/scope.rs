//! One scope at work: its caches, its sessions, and the two reconcilers.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alluxio_preload_api::client::Backoff;
use futures_util::{FutureExt, StreamExt};
use kube::{
    Resource, ResourceExt,
    runtime::{
        applier,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    credentials::{self, Identity, Keeper, Owner},
    metrics::Metrics,
    preload::reconcile::{self as preload, Memory, ReconcileError, Settings},
    runtime::{
        plan::Schema,
        reconcile::{self as runtime, Wishes},
    },
    sidecar::{Access, Sidecars},
    stores::{self, Queues, Scope},
    writer::Writer,
};

/// After a write that failed; per object.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(250), max: Duration::from_secs(60), attempts: u32::MAX };
/// What is known of objects that are gone is dropped so often.
const TIDY: Duration = Duration::from_secs(30);

/// What every scope shares.
#[derive(Clone, Debug)]
pub struct Shared {
    pub writer: Writer,
    pub metrics: Metrics,
    pub settings: Settings,
    /// Reconciliations of one kind at once; 0: no limit.
    pub concurrency: u16,
    pub schema: watch::Receiver<Option<Schema>>,
    pub access: Arc<Access>,
    /// Writes the Secrets of sidecars; None: the operator brings other credentials.
    pub keeper: Option<Arc<Keeper>>,
}

/// Serves the scope until `stop`; then no write and no session is left. `ready` is called once caches are full.
///
/// When the schema of AlluxioRuntimes changes, all of it begins anew: watches that were opened before go on to
/// show objects as the old schema has them.
pub async fn serve(scope: Scope, shared: Shared, stop: CancellationToken, ready: impl Fn()) {
    let mut schemas = shared.schema.clone();
    while let Some(Ok(schema)) = stop.run_until_cancelled(schemas.wait_for(Option::is_some)).await.map(copied)
    {
        let term = stop.child_token();
        let changed = async {
            // An error: nobody looks at schemas any more, since the process is stopping.
            if schemas.wait_for(|now| *now != Some(schema)).await.is_ok() {
                term.cancel();
            }
        };
        let serving = serve_schema(&scope, &shared, schema, term.clone(), &ready);
        tokio::join!(serving, term.run_until_cancelled(changed));
    }
}

/// The borrow of a channel must not be held while it is waited on.
fn copied(
    found: Result<watch::Ref<'_, Option<Schema>>, watch::error::RecvError>,
) -> Result<Schema, watch::error::RecvError> {
    found.map(|schema| schema.unwrap_or_default())
}

async fn serve_schema(
    scope: &Scope,
    shared: &Shared,
    schema: Schema,
    stop: CancellationToken,
    ready: &impl Fn(),
) {
    let (preload_sender, preload_queue) = mpsc::unbounded_channel();
    let (runtime_sender, runtime_queue) = mpsc::unbounded_channel();
    let queues = Queues { preloads: preload_sender.clone(), runtimes: runtime_sender };
    let wishes = Wishes::default();
    let (tasks, watching) = (TaskTracker::new(), CancellationToken::new());
    let stores = stores::start(shared.writer.client(), scope, schema, &queues, &wishes, (&tasks, &watching));
    let sidecars = Sidecars::new(shared.access.clone(), preload_sender, shared.writer.leadership().clone());
    if stop.run_until_cancelled(stores.ready()).await.is_some() {
        ready();
        let context = Arc::new(preload::Context {
            writer: shared.writer.clone(),
            stores: stores.clone(),
            sidecars: sidecars.clone(),
            metrics: shared.metrics.clone(),
            settings: shared.settings.clone(),
            memory: Memory::default(),
        });
        let runtimes = Arc::new(runtime::Context {
            writer: shared.writer.clone(),
            stores: stores.clone(),
            wishes,
            resync: shared.settings.resync,
            written: Mutex::default(),
        });
        let scheduling = (shared.concurrency, shared.metrics.clone(), stop.clone());
        tokio::join!(
            reconcile(
                stores.preloads.clone(),
                preload_queue,
                context.clone(),
                scheduling.clone(),
                |object, context| { preload::reconcile(object, context).boxed() }
            ),
            reconcile(
                stores.runtimes.clone(),
                runtime_queue,
                runtimes.clone(),
                scheduling,
                |object, context| { runtime::reconcile(object, context).boxed() }
            ),
            tidy(scope, &stores, (&context, &runtimes), &stop),
            rotate_credentials(shared.keeper.as_deref(), &stores, &stop),
            // At once: reconciliations under way may take long, and somebody else may lead by then.
            async {
                stop.cancelled().await;
                sidecars.stop().await;
            },
        );
    }
    watching.cancel();
    tasks.close();
    tasks.wait().await;
    sidecars.stop().await;
}

/// Runs one reconciler over its queue; after `stop` those under way come to their end.
async fn reconcile<K, C>(
    store: Store<K>,
    queue: mpsc::UnboundedReceiver<ObjectRef<K>>,
    context: Arc<C>,
    (concurrency, metrics, stop): (u16, Metrics, CancellationToken),
    reconcile: impl Fn(Arc<K>, Arc<C>) -> futures_util::future::BoxFuture<'static, Result<Action, ReconcileError>>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin,
    C: Send + Sync + 'static,
{
    let failures = Arc::new(Mutex::new(HashMap::<ObjectRef<K>, u32>::new()));
    let queue = UnboundedReceiverStream::new(queue)
        .map(Ok::<_, std::convert::Infallible>)
        .take_until(stop.cancelled_owned());
    let (count, of_success) = (failures.clone(), failures);
    let timed = |object: Arc<K>, context: Arc<C>| {
        let begun = Instant::now();
        let metrics = metrics.clone();
        let of_success = of_success.clone();
        let key = ObjectRef::from_obj(&*object);
        reconcile(object, context)
            .map(move |result| {
                metrics.reconciled(&K::kind(&()), result.is_ok(), begun.elapsed());
                if result.is_ok() {
                    of_success.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                }
                result
            })
            .boxed()
    };
    let policy = move |object: Arc<K>, error: &ReconcileError, _: Arc<C>| {
        let key = ObjectRef::from_obj(&*object);
        let mut failures = count.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.entry(key.clone()).or_insert(0);
        let pause = BACKOFF.random_delay(*failed).unwrap_or(BACKOFF.max);
        *failed = failed.saturating_add(1);
        tracing::warn!(object = %key, error = error as &dyn std::error::Error, ?pause, "trying again");
        Action::requeue(pause)
    };
    let config = controller::Config::default().concurrency(concurrency);
    applier(timed, policy, context, store, queue, config)
        .for_each(|done| async move {
            match done {
                Ok(_)
                | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::error!(%error, "the reconciler's queue failed"),
            }
        })
        .await;
}

/// Of the StatefulSets whose pods' sidecars were injected. What a pod says of its owner is believed only if there
/// is such a StatefulSet of masters: whoever may make pods could have any Secret written otherwise.
async fn rotate_credentials(keeper: Option<&Keeper>, stores: &stores::Stores, stop: &CancellationToken) {
    let exists = |owner: &Owner| {
        let Identity { namespace, stateful_set } = &owner.identity;
        let set = stores.sets.get(&ObjectRef::new(stateful_set).within(namespace));
        set.is_some_and(|set| set.uid().as_ref() == Some(&owner.uid))
    };
    let owners = || {
        let pods = stores.pods.state();
        pods.iter().filter_map(|pod| credentials::injected_by(pod)).filter(exists).collect()
    };
    if let Some(keeper) = keeper {
        credentials::rotate(keeper, owners, stop).await;
    }
}

/// Forgets what is gone, and counts what is there.
async fn tidy(
    scope: &Scope,
    stores: &stores::Stores,
    (preloads, runtimes): (&preload::Context, &runtime::Context),
    stop: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY) => {
                preloads.sidecars.retain(|key| stores.preloads.get(key).is_some());
                preloads.memory.retain(|key| stores.preloads.get(key).is_some());
                runtimes.retain(|key| stores.runtimes.get(key).is_some());
                preloads.metrics.observe(scope.label(), &preloads.memory.phases(), preloads.sidecars.sessions());
            }
        }
    }
}
