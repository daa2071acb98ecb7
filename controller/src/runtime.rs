//! Reconciles an `AlluxioRuntime`: makes, updates and deletes its `Preload`, and mirrors its phase.
//!
//! It never talks to a sidecar and holds no gate; the `Preload` is the truth.
//!
//! Invariants: a Preload of the same name that is not owned by the runtime is never touched; nothing is written
//! into a status that Fluid has not filled yet; what Fluid erases is written again with growing pauses only.

pub mod plan;
pub mod reconcile;
pub mod wish;

mod erasure;
