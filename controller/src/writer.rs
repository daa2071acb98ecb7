//! Every write to the API server goes through here: server-side apply with our field manager, only while we
//! lead, and only onto the state that was planned upon.

use std::{fmt::Debug, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    lease::Leadership,
    metrics::Metrics,
    preload::{load::shorten, status::Notice},
};

/// Field manager of all our writes, and the reporter of our events.
pub const MANAGER: &str = "preload-controller";
/// Longest wait for one answer: a reconciliation must end, so that a replica which lost its lease can.
const ANSWER: Duration = Duration::from_secs(15);
/// An object that somebody else changes all the time: how often one write is tried.
const TRIES: u32 = 8;

/// A write that was not made. The reconciler tries again with back-off.
#[derive(Debug, Error)]
pub enum WriteError {
    #[error("this replica does not lead any more")]
    NotLeading,
    #[error("the object has changed since it was looked at")]
    Changed,
    #[error("the API server does not answer")]
    Silent,
    #[error("the API server refuses: {0}")]
    Api(#[source] Box<kube::Error>),
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl WriteError {
    /// An object of that name is there already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if is_code(error, 409))
    }
}

/// Writes, counts, and tells. Clones share everything.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    /// Name of this replica, for events.
    instance: String,
    metrics: Metrics,
}

impl Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What is applied.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// spec or metadata
    Main,
    Status,
}

impl Writer {
    #[must_use]
    pub fn new(client: Client, instance: &str, leadership: Leadership, metrics: Metrics) -> Self {
        Self { leadership, instance: shorten(instance, 128), client, metrics }
    }

    #[must_use]
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Objects of one namespace, to be handed back to the methods below.
    #[must_use]
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.leadership.is_held() { Ok(()) } else { Err(WriteError::NotLeading) }
    }

    /// Applies `fields` to the object that `onto` is a state of, whatever has changed in it since. Fields that we
    /// applied before and leave out now are removed. Gives the new state.
    pub async fn apply<K>(&self, api: &Api<K>, onto: &K, part: Part, fields: Value) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let written = self.try_apply(api, onto, None, part, &fields).await;
        self.metrics.write(&K::kind(&()), if written.is_ok() { "applied" } else { "failed" });
        written
    }

    /// [`apply`](Self::apply), but only while `same` holds for the object: what was planned upon may have
    /// changed.
    pub async fn apply_if<K>(
        &self,
        api: &Api<K>,
        planned: &K,
        part: Part,
        fields: Value,
        same: impl Fn(&K) -> bool,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut version = planned.resource_version();
        for _ in 0..TRIES {
            match self.try_apply(api, planned, version, part, &fields).await {
                Err(error) if error.is_conflict() => self.metrics.conflict(),
                written => {
                    self.metrics.write(&K::kind(&()), if written.is_ok() { "applied" } else { "failed" });
                    return written;
                }
            }
            let now = within(api.get(&planned.name_any())).await?;
            if now.uid() != planned.uid() || !same(&now) {
                return Err(WriteError::Changed);
            }
            version = now.resource_version();
        }
        Err(WriteError::Changed)
    }

    async fn try_apply<K>(
        &self,
        api: &Api<K>,
        onto: &K,
        version: Option<String>,
        part: Part,
        fields: &Value,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.check()?;
        let name = onto.name_any();
        // The uid keeps apply from making the object anew should it have been deleted meanwhile.
        let mut metadata = json!({ "name": name, "uid": onto.uid() });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        let mut patch =
            json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata });
        merge(&mut patch, fields.clone());
        let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(patch));
        match part {
            Part::Main => within(api.patch(&name, &parameters, &patch)).await,
            Part::Status => within(api.patch_status(&name, &parameters, &patch)).await,
        }
    }

    /// Adds one finalizer or takes it away, and leaves those of others. Gives the new state; None: the object is
    /// gone.
    ///
    /// Not by apply: an apply owns all that it names, and the next one, of other fields, would take it away.
    pub async fn set_finalizer<K>(
        &self,
        api: &Api<K>,
        object: &K,
        finalizer: &str,
        present: bool,
    ) -> Result<Option<K>, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let name = object.name_any();
        for _ in 0..TRIES {
            self.check()?;
            let Some(now) = within(api.get_opt(&name)).await?.filter(|now| now.uid() == object.uid()) else {
                return Ok(None);
            };
            let mut finalizers = now.finalizers().to_vec();
            if finalizers.iter().any(|other| other == finalizer) == present {
                return Ok(Some(now));
            }
            finalizers.retain(|other| other != finalizer);
            finalizers.extend(present.then(|| finalizer.to_owned()));
            let fields = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": now.resource_version() } });
            match self.merge(api, &now, fields).await {
                Err(error) if error.is_conflict() => self.metrics.conflict(),
                Err(WriteError::Api(error)) if is_code(&error, 404) => return Ok(None),
                written => return written.map(Some),
            }
        }
        Err(WriteError::Changed)
    }

    /// Merges `fields` into exactly this object; null removes.
    pub async fn merge<K>(&self, api: &Api<K>, object: &K, mut fields: Value) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.check()?;
        // Another object of this name is refused.
        merge(&mut fields, json!({ "metadata": { "uid": object.uid() } }));
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let written = within(api.patch(&object.name_any(), &parameters, &Patch::Merge(fields))).await;
        self.metrics.write(&K::kind(&()), if written.is_ok() { "applied" } else { "failed" });
        written
    }

    /// Creates it; fails where it exists.
    pub async fn create<K>(&self, api: &Api<K>, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        self.check()?;
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = within(api.create(&parameters, object)).await;
        self.metrics.write(&K::kind(&()), if created.is_ok() { "created" } else { "failed" });
        created
    }

    /// Asks for the deletion of exactly this object.
    pub async fn delete<K>(&self, api: &Api<K>, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.check()?;
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match within(api.delete(&object.name_any(), &parameters)).await {
            Ok(_) => self.metrics.write(&K::kind(&()), "deleted"),
            // Gone already, or another object by now.
            Err(WriteError::Api(error)) if is_code(&error, 404) || is_code(&error, 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells people. An Event that cannot be written is logged, since nothing depends on it.
    pub async fn tell(&self, about: &ObjectReference, notices: &[Notice]) {
        for notice in notices {
            if !self.leadership.is_held() {
                return;
            }
            if let Err(error) = self.event(about, notice).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    reason = notice.reason,
                    "an event could not be written"
                );
            }
        }
    }

    /// One Event for each notice: each has words of its own, which a series would drop.
    async fn event(&self, about: &ObjectReference, notice: &Notice) -> Result<(), WriteError> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let stem: String = about.name.iter().flat_map(|name| name.chars()).take(200).collect();
        let event = Event {
            metadata: ObjectMeta {
                // Names of objects have up to 253 characters, those of Events too.
                name: Some(format!(
                    "{}.{}",
                    stem.trim_end_matches(['-', '.']),
                    uuid::Uuid::now_v7().simple()
                )),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some("Preload".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(notice.note.clone()),
            reason: Some(notice.reason.clone()),
            regarding: Some(about.clone()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        within(events.create(&PostParams::default(), &event)).await.map(drop)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(WriteError::Silent),
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Objects are merged, everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_is_not_named() {
        let mut value = json!({ "metadata": { "name": "a" } });
        merge(&mut value, json!({ "metadata": { "finalizers": ["f"] }, "status": null }));
        assert_eq!(value, json!({ "metadata": { "name": "a", "finalizers": ["f"] }, "status": null }));
    }
}
