//! Reconciles a `Preload`: observe, plan, apply, until nothing is left to do.
//!
//! It holds the gates and decides what the sidecar is asked for. It never waits for a sidecar: that is what
//! [`crate::sidecar`] does, which wakes it when there is news.
//!
//! Invariants: `run` and the load's id are in the status before a load is started; a load is started only while
//! every gate is open; a load that another run replaced is cancelled.

pub mod gates;
pub mod load;
pub mod load_id;
pub mod plan;
pub mod reconcile;
pub mod status;

mod failure;
mod observe;
mod pace;
mod rerun;
