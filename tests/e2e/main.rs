//! End-to-end tests: `make test`, or `cargo test -p preload-tests --test e2e NAME` after
//! `make prerequisites` and `cargo build --workspace`.

mod cancel;
mod contract;
mod crash;
mod disk;
mod harness;
mod history;
mod loads;
mod paths;
mod progress;
mod support;
