//! How to reach a sidecar: certificates, token, and connections that loads of one pod share.
//!
//! Invariant: a token is sent only to a pod that the plan has resolved itself, and, unless the operator says
//! otherwise, only after its certificate has proven that it belongs to the StatefulSet which the token opens.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use alluxio_preload_api::client::{Address, Client, ClientConfig, ConfigError, Tls, Token};
use thiserror::Error;

use crate::{
    credentials::{Identity, Keeper},
    preload::gates::Endpoint,
};

/// For a pod on the same network; a SYN that is lost is sent again after 1 and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// StartLoad waits for one fsync.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How sidecars and we know each other.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By what the keeper derives for each StatefulSet, and writes into the Secret that its pods mount.
    Managed(Arc<Keeper>),
    /// By files that the operator brings.
    Files(Files),
}

/// What to show to sidecars, as files that may be rotated. With none of them nothing is encrypted or proven.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Authority that signed the certificates of the sidecars; without it nothing is encrypted.
    pub ca: Option<PathBuf>,
    /// Certificate and key to show to them.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub token: Option<PathBuf>,
    /// Send the token without encryption.
    pub allow_plaintext_token: bool,
}

/// Makes connections, and shares them.
#[derive(Debug)]
pub struct Access {
    trust: Trust,
    /// Endpoints in use; an entry dies with its last session.
    clients: Mutex<HashMap<(Endpoint, Stamp), Weak<Client>>>,
}

/// Age of what a client was made with: one of another stamp has older credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stamp {
    /// When the files of the certificates were last written.
    Files(Vec<Option<SystemTime>>),
    /// The authorities, and the period of the token.
    Managed(Option<u64>, i64),
}

/// No connection can even be tried. Whoever runs the controller acts.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "--token-file without --tls-ca would send the token in plain text; give --tls-ca, or --allow-plaintext-token"
    )]
    PlaintextToken,
    #[error("{path} of {flag} holds no certificate; it needs a BEGIN CERTIFICATE block (PEM)")]
    NoCertificate { flag: &'static str, path: PathBuf },
    #[error("the root of all credentials has not been read yet; the log says why")]
    NoRoot,
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Access {
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, clients: Mutex::default() }
    }

    /// For a sidecar that cannot be spoken to: has its Secret written again, if that is ours.
    pub(super) async fn repair(&self, endpoint: &Endpoint) {
        if let (Trust::Managed(keeper), Some(owner)) = (&self.trust, endpoint.owner()) {
            keeper.repair(&owner).await;
        }
    }

    /// A connection to `endpoint`, made on the first call. Reads a few small files.
    pub(super) fn client(&self, endpoint: &Endpoint) -> Result<Arc<Client>, AccessError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.clone(), self.trust.stamp());
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(self.trust.connect(endpoint)?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    /// Fails if what is configured cannot work: files that are missing, a token without encryption.
    pub fn check(&self) -> Result<(), AccessError> {
        let Trust::Files(files) = &self.trust else { return Ok(()) };
        let Files { ca, identity, token, allow_plaintext_token } = files;
        if let Some(token) = token {
            read(token)?;
            if ca.is_none() && !allow_plaintext_token {
                return Err(AccessError::PlaintextToken);
            }
        }
        let certificate = identity.as_ref().map(|(certificate, _)| certificate);
        for (flag, path) in [("--tls-ca", ca.as_ref()), ("--tls-cert", certificate)] {
            let Some(path) = path else { continue };
            if !String::from_utf8_lossy(&read(path)?).contains("-----BEGIN CERTIFICATE-----") {
                return Err(AccessError::NoCertificate { flag, path: path.clone() });
            }
        }
        // Any address that is not this host: nothing is sent.
        let endpoint = Endpoint {
            pod: String::new(),
            pod_uid: String::new(),
            ip: "192.0.2.1".to_owned(),
            port: 1,
            identity: Identity::new("namespace", "master"),
            injected_by: None,
        };
        files.connect(&endpoint).map(drop)
    }
}

impl Trust {
    fn stamp(&self) -> Stamp {
        match self {
            Self::Managed(keeper) => {
                let fingerprint = keeper.root().borrow().as_ref().map(|root| root.fingerprint());
                Stamp::Managed(fingerprint, keeper.current_period())
            }
            Self::Files(files) => {
                let identity = files.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
                let written = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
                Stamp::Files(files.ca.iter().chain(identity).map(written).collect())
            }
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Client, AccessError> {
        let keeper = match self {
            Self::Managed(keeper) => keeper,
            Self::Files(files) => return files.connect(endpoint),
        };
        let root = keeper.root().borrow().clone().ok_or(AccessError::NoRoot)?;
        let tls = Tls {
            ca: root.authorities().into_bytes(),
            identity: None,
            server_name: Some(endpoint.identity.server_name()),
        };
        let token = root.token(&endpoint.identity, keeper.current_period());
        client(endpoint, Some(tls), Some(Token::Value(token)), false)
    }
}

impl Files {
    fn connect(&self, endpoint: &Endpoint) -> Result<Client, AccessError> {
        let Self { ca, identity, token, allow_plaintext_token } = self;
        let tls = match ca {
            None => None,
            Some(ca) => {
                let identity = match identity {
                    None => None,
                    Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                };
                Some(Tls { ca: read(ca)?, identity, server_name: Some(endpoint.identity.server_name()) })
            }
        };
        client(endpoint, tls, token.clone().map(Token::File), *allow_plaintext_token)
    }
}

fn client(
    endpoint: &Endpoint,
    tls: Option<Tls>,
    token: Option<Token>,
    allow_plaintext_token: bool,
) -> Result<Client, AccessError> {
    let address = Address::Tcp { host: endpoint.ip.clone(), port: endpoint.port, tls: Some(tls.is_some()) };
    Ok(Client::new(ClientConfig {
        tls,
        token,
        allow_plaintext_token,
        connect_timeout: CONNECT_TIMEOUT,
        call_timeout: CALL_TIMEOUT,
        ..ClientConfig::new(address)
    })?)
}

fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    fs::read(path).map_err(|source| AccessError::Read { path: path.to_owned(), source })
}
