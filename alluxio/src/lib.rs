//! A small async client of Alluxio 2.x over its own gRPC services; needs no JVM.
//!
//! [`Client`] has one method for each call; `examples/inspect.rs` shows all of them. It owns connections and
//! authentication (SIMPLE, NOSASL), time limits, and the search for the master that leads. It never caches answers,
//! never polls, and has no call that must not be repeated. Its only tasks are calls under which the master loads
//! metadata or a worker caches blocks: they must not be cut off, and [`Client::settled`] waits for them.
//!
//! Facts in the documentation of items were measured with Alluxio 2.9.3 unless said otherwise. The messages in `proto/`
//! are our own subset, written from the field numbers.

mod caching;
mod client;
mod codec;
mod config;
mod connection;
mod error;
mod file;
mod job;
mod listing;
mod master;
mod servers;
mod wire;
mod worker;

pub use caching::{BlockFailure, UfsBlock};
pub use client::Client;
pub use config::Config;
pub use error::{Error, Source};
pub use file::{Block, File, LoadMetadata};
pub use job::{CommandJob, Job, JobStatus, JobWorker};
pub use listing::Listing;
pub use master::MasterInfo;
pub use worker::{Worker, WorkerAddress};
