//! The harness of the end-to-end tests: a real Alluxio on loopback, the real sidecar, and an oracle.
//!
//! A test reads like this:
//!
//! ```ignore
//! use preload_tests::{MIB, Sidecar, load, shared};
//!
//! #[tokio::test]
//! async fn a_directory_is_loaded_twice() -> anyhow::Result<()> {
//!     let cluster = shared().await?;                       // one for all tests; or Cluster::start(options)
//!     let data = cluster.data("twice")?;                   // a fresh directory of the UFS
//!     data.files(20, MIB)?;
//!     let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
//!     sidecar.start_load(load("a", data.path(), 2)).await?;
//!     sidecar.in_state("a", State::Loaded).await?;
//!     cluster.oracle().assert_loaded(data.path(), 2).await?;
//!     sidecar.assert_no_errors()
//! }
//! ```
//!
//! - [`Cluster`]: start it with [`Options`], `kill` and `start_role` its processes, run its command line.
//! - [`Sidecar`]: `kill9`, `terminate`, `restart`, its log, a client. [`Setup`] where arguments do not do.
//! - [`Data`]: files to load. [`Oracle`]: what really is on the workers' disks.
//! - [`Sandbox`]: a loopback network and a directory; [`Leash`]: one process. Both vanish with the test
//!   process, also when that is killed with SIGKILL.
//! - [`Kubernetes`]: a control plane without nodes; [`shared_kubernetes`] for tests that do it no harm.
//! - [`Nodes`]: a control plane with real nodes that run pods; [`shared_nodes`] likewise. [`Image`] for more of
//!   them. [`Machine`]: namespaces to run programs in. [`Forward`]: a port that leads into them.
//! - [`Controller`]: the real one, as [`Sidecar`]; [`Crds`] for it. [`Fluid`] plays Fluid and the kubelet.
//! - [`SecretVolume`]: a Secret as a pod sees it.
//! - [`Registration`]: the controller's webhook, as `deploy/base` registers it, for one namespace.
//! - [`Course`]: every state of the objects of a namespace that the API server has shown.
//! - [`Gatekeeper`]: a way to the API server that counts writes, and can act right after one.
//! - [`Stub`]: hundreds of sidecars that are played, for tests of scale alone.
//! - [`Proxy`]: a network that a test can cut and slow down. [`SmallDisk`]: a disk that it can fill.
//! - [`torture`]: clients that call at random, a nemesis, and the contract as rules over what was answered.
//! - [`Secret`]: a directory as a kubelet mounts it. [`sockets`]: what a process listens on.
//! - [`grpcurl`], [`Authority`] for TLS, [`processes`] for what runs, [`wait::until`] for conditions.
//! - [`stats`] and [`facts`]: for programs that measure.
//!
//! Invariants: everything binds 127.x.y.z addresses that no other run has; no test depends on another; a
//! missing prerequisite is an error that names the command which installs it.

pub mod certificates;
pub mod cgroup;
pub mod cluster;
mod complaints;
pub mod controller;
pub mod course;
pub mod crds;
pub mod data;
pub mod dns;
pub mod facts;
pub mod fluid;
pub mod forward;
pub mod gatekeeper;
pub mod http;
pub mod kubernetes;
pub mod leash;
pub mod machine;
pub mod memory_group;
pub mod nodes;
pub mod oracle;
pub mod prerequisites;
pub mod processes;
pub mod proxy;
pub mod random;
pub mod registration;
pub mod resident;
pub mod rights;
pub mod sandbox;
pub mod secret;
pub mod secret_volume;
pub mod sidecar;
pub mod small_disk;
pub mod sockets;
pub mod stage;
pub mod stats;
pub mod stub;
pub mod torture;
pub mod wait;

mod grpcurl;

pub use certificates::Authority;
pub use cluster::{Authentication, Cluster, MIB, Options, Role, shared};
pub use controller::{Controller, ControllerSetup};
pub use course::{Course, Shown};
pub use crds::{Crds, shared_fluid};
pub use data::{Data, ODD_NAMES};
pub use fluid::Fluid;
pub use forward::Forward;
pub use gatekeeper::Gatekeeper;
pub use grpcurl::grpcurl;
pub use kubernetes::{AuditEvent, Kubernetes, KubernetesOptions, Part, shared as shared_kubernetes};
pub use leash::{Exit, Leash};
pub use machine::Machine;
pub use memory_group::MemoryGroup;
pub use nodes::{AlluxioPods, Container, Image, Node, NodePart, Nodes, NodesOptions, shared as shared_nodes};
pub use oracle::{Copies, Oracle};
pub use proxy::Proxy;
pub use registration::Registration;
pub use sandbox::{Output, Sandbox};
pub use secret::Secret;
pub use secret_volume::SecretVolume;
pub use sidecar::{Setup, Sidecar, entered, load};
pub use small_disk::SmallDisk;
pub use stub::{Behaviour, Stub};
