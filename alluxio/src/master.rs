//! The master itself.

use crate::wire::meta;

/// The leading master about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasterInfo {
    /// Its version, for example "2.9.3".
    pub version: String,
    /// Identity of the cluster; see [`crate::Client::cluster_id`].
    pub cluster_id: String,
    /// Milliseconds since the epoch of its start.
    pub start_time_ms: i64,
    /// It waits for workers to register and refuses calls about blocks and workers with UNAVAILABLE.
    pub safe_mode: bool,
}

impl From<meta::MasterInfo> for MasterInfo {
    fn from(info: meta::MasterInfo) -> MasterInfo {
        MasterInfo {
            version: info.version.unwrap_or_default(),
            cluster_id: info.cluster_id.unwrap_or_default(),
            start_time_ms: info.start_time_ms.unwrap_or_default(),
            safe_mode: info.safe_mode.unwrap_or_default(),
        }
    }
}
