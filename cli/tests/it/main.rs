//! The real `preloadctl` and the real client against a real gRPC server on loopback whose answers are
//! written down in each test. The sidecar has its own end-to-end tests; here it is the network's turn:
//! cuts, restarts, refusals, silence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod fixture;
mod secure;
mod server;
mod terminal;
mod watch_client;
mod watch_command;
