//! What every sidecar gets, whatever the pod.

use clap::ValueEnum;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The image that holds `/preload-sidecar`.
    pub image: String,
    /// None: as Kubernetes does.
    pub pull_policy: Option<PullPolicy>,
    /// An init container that goes on (Kubernetes 1.29 and newer): it starts before the master and ends after it.
    pub native: bool,
    pub resources: Resources,
    /// More arguments of `preload-sidecar serve`.
    pub arguments: Vec<String>,
    /// What the annotation says.
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Quantities of Kubernetes; none: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_request: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_request: Option<String>,
    pub memory_limit: Option<String>,
}

impl Resources {
    pub(super) fn to_json(&self) -> Value {
        let mut resources = json!({});
        for (kind, name, quantity) in [
            ("requests", "cpu", &self.cpu_request),
            ("requests", "memory", &self.memory_request),
            ("limits", "cpu", &self.cpu_limit),
            ("limits", "memory", &self.memory_limit),
        ] {
            if let Some(quantity) = quantity {
                super::object(&mut resources, kind)[name] = json!(quantity);
            }
        }
        resources
    }
}
