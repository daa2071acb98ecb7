//! The part of Fluid's `AlluxioRuntime` that matters here, with the fields of the preload API.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_PATH;

/// Annotations of an AlluxioRuntime. Those of the wish win over its spec; they survive on a stock Fluid, whose
/// schema drops the fields.
pub mod annotation {
    /// `true` or `false`.
    pub const ENABLED: &str = "preload.dev/enabled";
    /// Absolute Alluxio path.
    pub const PATH: &str = "preload.dev/path";
    /// `Auto`, `DistributedLoad` or `Native`.
    pub const ENGINE: &str = "preload.dev/engine";
    /// Time limit of a load, such as `2h`.
    pub const TIMEOUT: &str = "preload.dev/timeout";
    /// How often the cache is checked once it is loaded, such as `10m`.
    pub const REVERIFY_INTERVAL: &str = "preload.dev/reverify-interval";
    /// Bytes a second that a load may bring into the cache, such as `500000000`.
    pub const MAX_BYTES_PER_SECOND: &str = "preload.dev/max-bytes-per-second";
    /// preloadStatus, written by the controller where the schema has no field for it.
    pub const STATUS: &str = "preload.dev/status";
    /// `spec.data.preload` as last seen, written by the controller where Fluid may erase it: on the Preload, or
    /// on the runtime when there is no Preload to have it.
    pub const SPEC: &str = "preload.dev/spec";
}

/// An Alluxio cluster; see <https://github.com/fluid-cloudnative/fluid>.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.fluid.io",
    version = "v1alpha1",
    kind = "AlluxioRuntime",
    namespaced,
    shortname = "alluxio",
    category = "fluid",
    status = "AlluxioRuntimeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An Alluxio cluster whose cache is preloaded, for Kubernetes without Fluid.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.currentWorkerNumberScheduled",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.preloadStatus"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.preloadProgress"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.data.replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.data.preload.path", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct AlluxioRuntimeSpec {
    /// Workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    #[serde(default)]
    pub data: Data,
}

/// How data are kept in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Data {
    /// Copies of each block; 1 where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), default = "one")]
    pub replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(default = "everything")]
    pub preload: Option<PreloadWish>,
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field")]
fn one() -> Option<i32> {
    Some(1)
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field")]
fn everything() -> Option<PreloadWish> {
    Some(PreloadWish::default())
}

/// What to load as soon as the cluster is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PreloadWish {
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Absolute Alluxio path.
    #[serde(default = "root")]
    #[schemars(length(max = MAX_PATH))]
    #[x_kube(
        validation = Rule::new("self.startsWith('/')").message("must be an absolute Alluxio path such as / or /data/train"),
        validation = Rule::new("!self.split('/').exists(c, c == '.' || c == '..')").message("must not hold the components . or .."),
        validation = Rule::new(r"!self.matches('[\\x00\\n\\r]')").message("must not hold control characters")
    )]
    pub path: String,
}

fn yes() -> bool {
    true
}

fn root() -> String {
    "/".to_owned()
}

impl Default for PreloadWish {
    fn default() -> Self {
        Self { enabled: yes(), path: root() }
    }
}

/// Fluid's report; of a runtime that Fluid does not run, only our fields are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlluxioRuntimeStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_worker_number_scheduled: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_worker_number_scheduled: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_number_ready: Option<i32>,
    /// When Fluid last mounted an under file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How far the preload is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload_status: Option<MirroredStatus>,
    /// Such as `42%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload_progress: Option<String>,
}

/// `status.preloadStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MirroredStatus {
    /// Not looked at yet.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Disabled, or a gate is shut, or metadata are being loaded.
    NotStarted,
    /// Data are being loaded or verified.
    DisLoading,
    /// Every block was seen in the cache at the wished replication.
    Loaded,
    /// The load ended without success.
    Failed,
}
