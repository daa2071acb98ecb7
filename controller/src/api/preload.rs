//! `Preload`: one load of one path into one Alluxio cluster of its namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_PATH;

/// Which path to load into which cluster, and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "preload.dev",
    version = "v1alpha1",
    kind = "Preload",
    namespaced,
    shortname = "pl",
    category = "fluid",
    status = "PreloadStatus",
    derive = "PartialEq",
    doc = "Loads one path into the cache of one Alluxio cluster of its namespace.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.progress.percent"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.eta"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtimeRef.name", priority = "1"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas", priority = "1"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.progress.rate", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct PreloadSpec {
    /// The cluster to load into; another cluster needs another Preload.
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; make another Preload"))]
    pub runtime_ref: RuntimeRef,
    /// Absolute Alluxio path of a directory or a file.
    #[serde(default = "root")]
    #[schemars(length(max = MAX_PATH))]
    #[x_kube(
        validation = Rule::new("self.startsWith('/')").message("must be an absolute Alluxio path such as / or /data/train"),
        validation = Rule::new("!self.split('/').exists(c, c == '.' || c == '..')").message("must not hold the components . or .."),
        validation = Rule::new(r"!self.matches('[\\x00\\n\\r]')").message("must not hold control characters")
    )]
    pub path: String,
    /// Copies of each block, each on another worker.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub replicas: i32,
    /// What does the work.
    #[serde(default)]
    pub engine: Engine,
    /// How long listing, loading and verifying may take in all, such as 2h or 90m; no limit without it.
    /// A change counts from the next run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && self.matches('[1-9]')").message("must be a duration such as 2h, 90m or 1h30m")
    )]
    #[schemars(length(max = 32))]
    pub timeout: Option<String>,
    /// How often it is checked whether everything is still in the cache, such as 10m; never without it. What has
    /// left is loaded again. A change counts from the next run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && self.matches('[1-9]')").message("must be a duration such as 2h, 90m or 1h30m")
    )]
    #[schemars(length(max = 32))]
    pub reverify_interval: Option<String>,
    /// Bytes a second that the load may bring into the cache, over all workers; no limit without it. Not with
    /// engine DistributedLoad, which cannot keep one. A change counts from the next run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes_per_second: Option<i64>,
}

fn root() -> String {
    "/".to_owned()
}

fn one() -> i32 {
    1
}

/// An Alluxio cluster in the namespace of the Preload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.kind == 'AlluxioRuntime' || has(self.workers) || self.name.endsWith('-master')")
        .message("a StatefulSet whose name does not end with -master needs workers, the name of the workers' StatefulSet"),
    validation = Rule::new("self.kind == 'StatefulSet' || !has(self.workers)")
        .message("workers belongs to kind StatefulSet")
)]
pub struct RuntimeRef {
    /// AlluxioRuntime, or StatefulSet where the masters of a cluster were installed without Fluid.
    #[serde(default)]
    pub kind: RuntimeKind,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// For kind StatefulSet: the StatefulSet of the workers; without it NAME-worker for masters NAME-master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workers: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RuntimeKind {
    #[default]
    AlluxioRuntime,
    StatefulSet,
}

/// What does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Engine {
    /// What the cluster can do best.
    #[default]
    Auto,
    DistributedLoad,
    Native,
}

/// What became of it. Written by the controller alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreloadStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: Phase,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of the load that this Preload asks for; a withdrawn or repeated one has the next number.
    #[serde(default)]
    pub run: i64,
    /// Id of that load in the sidecar.
    #[serde(default, rename = "loadID", skip_serializing_if = "Option::is_none")]
    pub load_id: Option<String>,
    /// Set before the load is started, for good in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Submission>,
    /// Loads of earlier runs that still have to be cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancelling: Vec<String>,
    /// Failed runs in a row that were, or will be, tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i32,
    /// How often in a row data left the cache soon after they were loaded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evictions: i32,
    /// This run waits until then: what is evicted again and again is not loaded all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Why the last run failed, as the sidecar names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The engine that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Where a Preload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// A gate is shut, or the sidecar has not begun to load; the conditions and the message say why.
    #[default]
    Pending,
    /// Data are being loaded or verified.
    Loading,
    /// Every block was seen in the cache at the wished replication.
    Loaded,
    /// It ended without success.
    Failed,
    /// Somebody cancelled the load in the sidecar.
    Cancelled,
}

/// Where the load was sent, or is about to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// The master pod whose sidecar has the load.
    pub pod: String,
    /// A pod of another uid is another master: its predecessor's cache is lost.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// status.mountTime of the AlluxioRuntime then: a later one means that more was mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_time: Option<String>,
    /// The sidecar has acknowledged it: from now on it must know the load.
    #[serde(default)]
    pub accepted: bool,
}

/// How far a load is. Bytes count every wished copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub files: i64,
    pub files_total: i64,
    pub bytes: i64,
    pub bytes_total: i64,
    /// Of the bytes, rounded down.
    pub percent: i32,
    /// Such as 120 MiB/s; empty when nothing moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Such as 2m30s; empty when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
}

/// Files that are not loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failures {
    /// Of all of them.
    pub count: i64,
    /// At most 10; `preloadctl failures LOAD_ID` lists more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<FailedFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedFile {
    pub path: String,
    /// Over all wished copies.
    pub bytes_missing: i64,
    pub reason: String,
}

/// Types of the conditions, in the order in which they come true.
pub mod condition {
    pub const MASTER_READY: &str = "MasterReady";
    pub const SIDECAR_REACHABLE: &str = "SidecarReachable";
    pub const WORKERS_READY: &str = "WorkersReady";
    pub const METADATA_LOADED: &str = "MetadataLoaded";
    pub const LOADED: &str = "Loaded";
}
