//! The long cases on real nodes, `make e2e`: what is killed, upgraded and removed, and masters on the host network.
//! `cargo test` leaves them out; `cargo test -p preload-tests --test cluster NAME` runs those of that name.
//!
//! They come one after the other, on one cluster as long as they succeed.

mod host_network;
mod kills;
mod scene;
mod troubles;
mod uninstall;
mod upgrade;
