//! `preload-controller`: keeps `Preload` and `AlluxioRuntime` resources loaded, by calling the sidecar in the
//! master's pod over the pod network. `run` is the house plan.

pub mod admin;
pub mod api;
pub mod args;
pub mod crd;
pub mod credentials;
pub mod injection;
pub mod lease;
pub mod metrics;
pub mod preload;
pub mod run;
pub mod runtime;
pub mod schema;
pub mod scope;
pub mod sidecar;
pub mod stores;
pub mod telemetry;
pub mod webhook;
pub mod writer;
