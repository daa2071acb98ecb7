//! A small async client of Alluxio 2.x over its own gRPC services; needs no JVM.

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

pub use client::Client;
pub use config::Config;
pub use error::{Error, Source};
pub use file::{Block, File, LoadMetadata};
pub use job::{CommandJob, Job, JobStatus, JobWorker};
pub use listing::Listing;
pub use master::MasterInfo;
pub use worker::{Worker, WorkerAddress};
