//! The preload sidecar: runs beside an Alluxio master and makes wishes for cached data come true.

pub mod job;
pub mod store;
