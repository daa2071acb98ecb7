//! The admission webhook and `preload-controller inject`, on a real API server.

mod admission;
mod certificates;
mod manifests;
mod world;
