//! Torture: clients call the real sidecar at random, while a nemesis kills, stops, cuts, fills and moves what it
//! runs on. Every answer is recorded, and the record is checked against the contract.
//!
//! `make torture` runs it; [`run::Torture`] is the whole of it, for tests too. What is drawn follows from a seed,
//! so that a seed repeats it, though not how quick the machine is.
//!
//! Invariants: `history` and `contract` are pure; every loop ends; whatever happens, what was started is gone
//! when this process is.

pub mod client;
pub mod clock;
pub mod contract;
pub mod history;
pub mod nemesis;
pub mod plan;
pub mod record;
pub mod run;
pub mod witness;

pub use contract::{Violation, check};
pub use history::History;
pub use run::{Outcome, Torture};
