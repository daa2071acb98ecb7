//! The wish, after defaults.

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::AlluxioPath;

/// Default of `wait_timeout`: a Fluid cluster's workers come up within minutes, or not without help.
const WAIT_TIMEOUT: Duration = Duration::from_secs(600);
/// Default of `max_attempts`.
const MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// Name of a load: `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`, a DNS label (RFC 1123), so that it can name
/// Kubernetes objects and files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LoadId(String);

/// What to load, and how. Defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub path: AlluxioPath,
    pub replicas: NonZeroU32,
    pub engine: EngineChoice,
    pub load_metadata: LoadMetadata,
    pub min_workers: u32,
    pub allow_evict: bool,
    pub wait_timeout: Duration,
    pub timeout: Option<Duration>,
    pub max_attempts: NonZeroU32,
    pub labels: BTreeMap<String, String>,
    /// How often LOADED is checked again; `None`: never. Specs that were stored before there was this field lack it.
    #[serde(default)]
    pub reverify_interval: Option<Duration>,
    /// Over all workers; `None`: no limit.
    #[serde(default)]
    pub max_bytes_per_second: Option<NonZeroU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    Auto,
    DistributedLoad,
    Native,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMetadata {
    Once,
    Never,
    Always,
}

/// A field of a request that is not acceptable. The caller changes it; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct SpecError {
    /// As named by the contract, such as `spec.path`.
    pub field: &'static str,
    /// What is wrong, and the accepted form.
    pub problem: String,
}

impl Spec {
    /// All defaults, for `path`.
    #[must_use]
    pub fn new(path: AlluxioPath) -> Self {
        Self {
            path,
            replicas: NonZeroU32::MIN,
            engine: EngineChoice::Auto,
            load_metadata: LoadMetadata::Once,
            min_workers: 0,
            allow_evict: false,
            wait_timeout: WAIT_TIMEOUT,
            timeout: None,
            max_attempts: MAX_ATTEMPTS,
            labels: BTreeMap::new(),
            reverify_interval: None,
            max_bytes_per_second: None,
        }
    }

    /// Names of the fields in which two specs wish for different loads. Gates, time-outs, labels
    /// and the interval of checks do not count.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("spec.path", self.path == other.path),
            ("spec.replicas", self.replicas == other.replicas),
            ("spec.engine", self.engine == other.engine),
            ("spec.load_metadata", self.load_metadata == other.load_metadata),
            ("spec.allow_evict", self.allow_evict == other.allow_evict),
            ("spec.max_attempts", self.max_attempts == other.max_attempts),
        ]
        .into_iter()
        .filter_map(|(field, equal)| (!equal).then_some(field))
        .collect()
    }
}

impl LoadId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LoadId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let accepted = matches!(bytes.len(), 1..=63)
            && bytes.iter().all(|&c| word(c) || c == b'-')
            && bytes.first().is_some_and(|&c| word(c))
            && bytes.last().is_some_and(|&c| word(c));
        if accepted {
            Ok(Self(text))
        } else {
            Err("must be 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit".to_owned())
        }
    }
}

impl From<LoadId> for String {
    fn from(id: LoadId) -> Self {
        id.0
    }
}

impl fmt::Display for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<uuid::Uuid> for LoadId {
    /// The hyphenated form, 36 characters, is a legal id.
    fn from(uuid: uuid::Uuid) -> Self {
        Self(uuid.hyphenated().to_string())
    }
}
