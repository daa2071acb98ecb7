//! What the TCP listener shows and accepts: a certificate, tokens, an authority for clients.
//!
//! The files may appear late and change at any time: `follow` reads them, `keys` makes of them what is used,
//! here is who sees which. Never logs a token or a key. Invariant: keys that were usable are given up only
//! for others that are.

mod files;
mod follow;
mod keys;

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

pub use self::{files::Sources, follow::Follower, keys::Keys};

/// The files cannot be used. The operator corrects them; they are read again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    #[error("waiting for credentials: {} {} missing", files.join(", "), if files.len() == 1 { "is" } else { "are" })]
    Missing { files: Vec<String> },
    #[error("{file}: {problem}")]
    Unusable { file: String, problem: String },
}

/// What is known at a moment.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last that were usable.
    pub keys: Option<Arc<Keys>>,
    /// Why what is on disk now is not.
    pub trouble: Option<CredentialsError>,
}

/// Sees the newest keys. Clones share them.
#[derive(Debug, Clone)]
pub struct Access {
    known: watch::Receiver<Known>,
    has_tls: bool,
}

impl Access {
    /// Whether the listener speaks TLS; never changes.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// For a new connection; `None`: nobody is let in yet.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.keys().and_then(|keys| keys.tls.clone())
    }

    /// For a request; `None`: nobody is let in yet.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.known.borrow().keys.clone()
    }
}
