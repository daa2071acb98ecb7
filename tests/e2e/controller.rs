//! The controller on a real API server, with the real sidecar on the real Alluxio. Fluid and the kubelet are
//! played ([`preload_tests::Fluid`]), because there are no nodes.

mod crash;
mod credentials;
mod election;
mod flavours;
mod gates;
mod injection;
mod loads;
mod outage;
mod reverify;
mod scale;
mod security;
mod truth;
mod wishes;
mod world;
