//! The preload sidecar: runs beside an Alluxio master and makes wishes for cached data come true.
//!
//! From the outside in: `server` and `service` speak gRPC, `manager` owns the loads, `engine` moves data,
//! `store` remembers. In the middle `job`, `gates` and `survey` decide; they know no framework.

mod accept;
pub mod admin;
pub mod alluxio;
mod answers;
pub mod auth;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod engine;
pub mod gates;
pub mod healthcheck;
pub mod human;
pub mod install;
pub mod job;
pub mod keeper;
pub mod lenient;
pub mod manager;
pub mod metrics;
mod observe;
pub mod panics;
pub mod program;
pub mod readiness;
mod requests;
pub mod run;
pub mod server;
pub mod service;
pub mod store;
pub mod survey;
pub mod telemetry;
