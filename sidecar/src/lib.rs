//! The preload sidecar: runs beside an Alluxio master and makes wishes for cached data come true.

pub mod alluxio;
pub mod clock;
pub mod engine;
pub mod gates;
pub mod human;
pub mod job;
pub mod manager;
pub mod service;
pub mod store;
pub mod survey;
