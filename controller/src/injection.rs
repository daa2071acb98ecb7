//! Adds the sidecar to the pod of an Alluxio master, or to the template of such pods. Pure: JSON in, JSON out.
//!
//! Works on JSON instead of types: fields that this program does not know survive.
//!
//! Invariants: what is there stays as it is, things are only added; an injected pod is left alone, so a second
//! call changes nothing; a pod that is valid is valid afterwards, or it is left
//! alone. (Quotas and limit ranges are not known here: they may refuse what was added.)

mod container;
mod manifest;
mod options;
mod owner;
mod port;
mod volume;

use serde_json::{Map, Value, json};
use thiserror::Error;

pub use manifest::{ManifestError, Manifests};
pub use options::{Options, PullPolicy, Resources};
pub use owner::{Owner, credentials_owner};
pub use port::{PortRange, is_shared, place};

/// Label of the pods of masters, as Fluid and Alluxio's chart set it.
pub const ROLE: (&str, &str) = ("role", "alluxio-master");
/// Label or annotation of a pod; `false`: no sidecar.
pub const OPT_OUT: &str = "preload.dev/inject";
/// Annotation: which port the sidecar's gRPC API has. Set before the injection it is a wish.
pub const PORT: &str = "preload.dev/sidecar-port";
/// Annotation: version of what was injected.
pub const INJECTED: &str = "preload.dev/injected";
pub const SIDECAR: &str = "preload-sidecar";
pub const INSTALL: &str = "preload-install";
/// Port of the gRPC API where the pod has a network of its own; the admin port is the next.
pub const DEFAULT_PORT: u16 = 29700;
/// Of names of Secrets.
const MAX_NAME: usize = 253;

/// Why a pod is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LeftAlone {
    #[error("the controller does not serve it")]
    NotServed,
    #[error("no label {}={}", ROLE.0, ROLE.1)]
    NoMaster,
    #[error("{OPT_OUT} is false")]
    OptedOut,
    #[error("it has the sidecar already")]
    Injected,
    #[error("it runs to completion, which a sidecar would prevent")]
    RunsToCompletion,
    #[error("it has no container")]
    Empty,
    #[error("a part of an earlier injection is missing: {0}; remove containers {INSTALL} and {SIDECAR}, too")]
    HalfInjected(String),
    #[error("the name of its Secret, {0}, would be longer than {MAX_NAME} characters")]
    LongName(String),
    #[error(
        "annotation {PORT}: {0:?} is no port from 1024 to 65534 that is free in the pod together with the next"
    )]
    Port(String),
    #[error("no two free ports, one after the other, in {0}; widen --host-ports")]
    NoPort(String),
}

impl LeftAlone {
    /// Somebody wanted the sidecar and does not get it: he is to be told.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::NotServed
            | Self::NoMaster
            | Self::OptedOut
            | Self::Injected
            | Self::RunsToCompletion
            | Self::Empty => false,
            Self::HalfInjected(_) | Self::LongName(_) | Self::Port(_) | Self::NoPort(_) => true,
        }
    }
}

/// What differs from pod to pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Secret with the sidecar's credentials.
    pub secret: &'a str,
    /// Of the gRPC API; the admin port is the next.
    pub port: u16,
    /// Volumes that a StatefulSet adds to the pods of its template.
    pub claims: &'a [&'a str],
}

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    pub pod: Value,
    /// What the sidecar does not have of the master, and why.
    pub notes: Vec<String>,
}

/// Whether the pod is to have a sidecar and has none.
pub fn judge(pod: &Value) -> Result<(), LeftAlone> {
    if text(pod, &["metadata", "labels", ROLE.0]) != Some(ROLE.1) {
        return Err(LeftAlone::NoMaster);
    }
    let refuses = |place: &str| text(pod, &["metadata", place, OPT_OUT]) == Some("false");
    if refuses("labels") || refuses("annotations") {
        return Err(LeftAlone::OptedOut);
    }
    if text(pod, &["spec", "restartPolicy"]).is_some_and(|policy| policy != "Always") {
        return Err(LeftAlone::RunsToCompletion);
    }
    if items(&pod["spec"], "containers").is_empty() {
        return Err(LeftAlone::Empty);
    }
    match container::missing_parts(pod) {
        None => Ok(()),
        Some(missing) if missing.is_empty() => Err(LeftAlone::Injected),
        Some(missing) => Err(LeftAlone::HalfInjected(missing.join(", "))),
    }
}

/// Adds the sidecar.
pub fn inject(pod: &Value, placement: Placement<'_>, options: &Options) -> Result<Injection, LeftAlone> {
    judge(pod)?;
    if placement.secret.len() > MAX_NAME {
        return Err(LeftAlone::LongName(placement.secret.to_owned()));
    }
    let mut notes = Vec::new();
    let install = container::install(pod, options);
    let sidecar = container::sidecar(pod, placement.port, options, &mut notes);
    let volumes = volume::missing(pod, placement);

    let mut pod = pod.clone();
    let annotations = object(object(&mut pod, "metadata"), "annotations");
    annotations[PORT] = json!(placement.port.to_string());
    annotations[INJECTED] = json!(options.version);
    let spec = object(&mut pod, "spec");
    append(spec, "volumes", volumes);
    // Behind the master's own, which so start as they did before.
    append(spec, "initContainers", [install]);
    append(spec, if options.native { "initContainers" } else { "containers" }, [sidecar]);
    Ok(Injection { pod, notes })
}

/// The string at a path of keys.
fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_str()
}

/// The items of an array that may be missing.
fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object of this key, made where there is none.
fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let field = &mut value[key];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field
}

fn append(spec: &mut Value, key: &str, more: impl IntoIterator<Item = Value>) {
    let field = &mut spec[key];
    match field.as_array_mut() {
        Some(items) => items.extend(more),
        None => *field = more.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
