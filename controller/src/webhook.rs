//! The admission webhook that adds the sidecar to the pods of Alluxio masters.
//!
//! Owns its HTTPS port, the ports that sidecars get on hosts' networks, and the `caBundle` of its registration.
//! Every replica serves, whether or not it leads. Changes nothing in the cluster itself, but through
//! [`EnsureCredentials`], and the registration, which the leader alone keeps.
//!
//! Invariants: it never refuses a pod; whatever goes wrong, the pod is admitted as it came, with a warning; a dry
//! run leaves no trace.

mod certificate;
mod image;
mod injector;
mod ports;
mod registration;
mod review;
mod server;
mod setup;
mod version;

use std::{fmt::Debug, net::IpAddr};

use futures_util::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

pub use certificate::{ServiceName, from_files, from_root};
pub use image::{OwnPod, Source};
pub use injector::{Injector, NativeSidecar};
pub use ports::Ports;
pub use registration::Registration;
pub use server::Obstacle;
pub use setup::{Webhook, WebhookError};

/// What the server shows, and by what its clients know it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServingCertificate {
    /// The server's certificate first (PEM).
    pub chain_pem: String,
    pub key_pem: String,
    /// Authorities that the API server is to trust (PEM).
    pub ca_pem: String,
}

/// Without the key.
impl Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCertificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// Makes the credentials of a sidecar before its pod is there.
///
/// Who calls the webhook is not known: the API server shows nothing. An implementation has to find out itself
/// that the StatefulSet exists and may have credentials.
pub trait EnsureCredentials: Debug + Send + Sync {
    fn ensure<'a>(
        &'a self,
        namespace: &'a str,
        stateful_set: &'a OwnerReference,
    ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error + Send + Sync>>>;
}

/// Somebody else makes them, or nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCredentials;

impl EnsureCredentials for NoCredentials {
    fn ensure<'a>(
        &'a self,
        _: &'a str,
        _: &'a OwnerReference,
    ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Names that the certificate has to have: those of the Service, and the address, if it is one that a
/// `clientConfig.url` can name.
#[must_use]
pub fn names(service: &ServiceName, listen: IpAddr) -> Vec<String> {
    let mut names = service.names();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names
}
