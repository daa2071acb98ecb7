//! End-to-end tests: `make test`, or `cargo test -p preload-tests --test e2e NAME` after
//! `make prerequisites` and `cargo build --workspace`.

mod access;
mod cancel;
mod contract;
mod controller;
mod crash;
mod disk;
mod faults;
mod harness;
mod history;
mod kubernetes;
mod loads;
mod nodes;
mod outcome;
mod paths;
mod preserve;
mod progress;
mod support;
mod versions;
mod watch;
mod wishes;
