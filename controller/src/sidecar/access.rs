//! How to reach a sidecar: certificates, token, and connections that loads of one pod share.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use alluxio_preload_api::client::{Address, Client, ClientConfig, ConfigError, Tls, Token};
use thiserror::Error;

use crate::preload::gates::Endpoint;

/// For a pod on the same network; a SYN that is lost is sent again after 1 and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// StartLoad waits for one fsync.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What to show to sidecars, as files that may be rotated.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
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
    credentials: Credentials,
    /// Endpoints in use, with the age of the certificates; an entry dies with its last session.
    clients: Mutex<HashMap<(Endpoint, Stamp), Weak<Client>>>,
}

/// When the files of the certificates were last written: a client of another stamp has older ones.
type Stamp = Vec<Option<SystemTime>>;

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
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Access {
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, clients: Mutex::default() }
    }

    /// A connection to `endpoint`, made on the first call. Reads a few small files.
    pub(super) fn client(&self, endpoint: &Endpoint) -> Result<Arc<Client>, AccessError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.clone(), self.stamp());
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(self.connect(endpoint)?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    fn stamp(&self) -> Stamp {
        let Credentials { ca, identity, token: _, allow_plaintext_token: _ } = &self.credentials;
        let identity = identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let written = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
        ca.iter().chain(identity).map(written).collect()
    }

    /// Fails if what is configured cannot work: files that are missing, a token without encryption.
    pub fn check(&self) -> Result<(), AccessError> {
        let Credentials { ca, identity, token, allow_plaintext_token } = &self.credentials;
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
            server_name: "runtime.namespace.preload.dev".to_owned(),
        };
        self.connect(&endpoint).map(drop)
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Client, AccessError> {
        let Credentials { ca, identity, token, allow_plaintext_token } = &self.credentials;
        let tls = match ca {
            None => None,
            Some(ca) => {
                let identity = match identity {
                    None => None,
                    Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                };
                Some(Tls { ca: read(ca)?, identity, server_name: Some(endpoint.server_name.clone()) })
            }
        };
        let address =
            Address::Tcp { host: endpoint.ip.clone(), port: endpoint.port, tls: Some(tls.is_some()) };
        Ok(Client::new(ClientConfig {
            tls,
            token: token.clone().map(Token::File),
            allow_plaintext_token: *allow_plaintext_token,
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            ..ClientConfig::new(address)
        })?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    fs::read(path).map_err(|source| AccessError::Read { path: path.to_owned(), source })
}
