//! End-to-end tests: `make test TEST_ARGS=NAME`, or `cargo test --workspace --test e2e NAME` after
//! `make prerequisites` and `cargo build --workspace`.

mod access;
mod cancel;
mod contract;
mod controller;
mod crash;
mod credentials;
mod disk;
mod faults;
mod harness;
mod history;
mod hostile;
mod kubernetes;
mod loads;
mod manifests;
mod memory;
mod messages;
mod native;
mod nodes;
mod on_a_cluster;
mod outcome;
mod paths;
mod preserve;
mod progress;
mod read_only;
mod reverify;
mod static_binary;
mod stay_up;
mod strangers;
mod support;
mod torture;
mod versions;
mod watch;
mod wishes;
