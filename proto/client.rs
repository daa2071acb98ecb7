//! A thin client of `preload.v1`: address, TLS, bearer token, deadlines, and a watch that resumes.
//!
//! It owns one HTTP/2 connection, made on the first call and made again when it breaks. It never repeats a
//! unary call by itself; only [`Watch`] does, because watching changes nothing. A token never travels in
//! plain text to another host unless [`ClientConfig::allow_plaintext_token`] says so.

mod address;
mod backoff;
mod explain;
mod token;
mod watch;

pub use address::{Address, AddressError};
pub use backoff::Backoff;
pub use explain::{Explanation, is_unreachable};
pub use token::Token;
pub use watch::{Update, Watch, WatchOptions, is_terminal};

use crate::v1::preload_service_client::PreloadServiceClient;
use crate::v1::{
    CancelLoadRequest, DeleteLoadRequest, GetLoadRequest, ListFailuresRequest, ListFailuresResponse,
    ListLoadsRequest, ListLoadsResponse, Load, StartLoadRequest, VerifyLoadRequest, WatchLoadRequest,
};
use std::{fmt, future::Future, io, path::PathBuf, time::Duration};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status, Streaming};

/// A peer that vanished without a FIN (node lost, network cut) is found after
/// `KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT`; TCP alone needs about 15 minutes. Only while a call is open.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The sidecar answers VerifyLoad at the latest then: it lists the whole path.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(660);

/// Where the sidecar is and how to speak to it.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub address: Address,
    /// Needed for `https://`, and turns `host:port` into it.
    pub tls: Option<Tls>,
    pub token: Option<Token>,
    /// Send the token over plain TCP to a host that is not this one. Whoever sees the packets has it then.
    pub allow_plaintext_token: bool,
    /// Limit of one attempt to connect.
    pub connect_timeout: Duration,
    /// Deadline of every unary call but VerifyLoad, which takes as long as a listing; a watch has none.
    pub call_timeout: Duration,
}

impl ClientConfig {
    /// No TLS, no token, 5 s to connect, 20 s for a call: StartLoad waits for one fsync, and only VerifyLoad
    /// for Alluxio.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            token: None,
            allow_plaintext_token: false,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(20),
        }
    }
}

/// What TLS needs, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// Authorities that may have signed the certificate of the sidecar. The system's are not consulted:
    /// a sidecar's certificate comes from an authority of the cluster.
    pub ca: Vec<u8>,
    /// Certificate and private key of the client, where the sidecar asks for them.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name expected in the certificate, when it is not the host of the address.
    pub server_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ca: _, identity, server_name } = self;
        f.debug_struct("Tls")
            .field("identity", &identity.is_some())
            .field("server_name", server_name)
            .finish_non_exhaustive()
    }
}

/// The configuration cannot work; whoever wrote it has to change it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("{0} needs the certificate of an authority; give one, or use http://")]
    NoAuthority(Address),
    #[error("{0} is not encrypted, but certificates are given; use https://, or leave them out")]
    NotEncrypted(Address),
    #[error("no certificate in the PEM of {0}; it needs a BEGIN CERTIFICATE block")]
    NoCertificate(&'static str),
    #[error("cannot use the certificates, which must be PEM, with a key that fits")]
    BadTls(#[source] tonic::transport::Error),
    #[error("a token would travel to {0} in plain text; use https:// or a unix socket, or allow it")]
    PlaintextToken(Address),
    #[error("cannot read the token file {path}")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token is empty or not printable ASCII; give one line of it")]
    BadToken,
    #[error("cannot use the address {0}")]
    BadAddress(Address, #[source] tonic::transport::Error),
}

/// Calls the methods of PreloadService. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    inner: PreloadServiceClient<Channel>,
    token: Option<Token>,
    call_timeout: Duration,
}

impl Client {
    /// Checks the configuration; connects on the first call. Needs a Tokio runtime.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        let ClientConfig { address, tls, token, allow_plaintext_token, connect_timeout, call_timeout } =
            config;
        let encrypted = match (address.tls(), &tls) {
            (Some(true), None) => return Err(ConfigError::NoAuthority(address)),
            (Some(false), Some(_)) => return Err(ConfigError::NotEncrypted(address)),
            (_, tls) => tls.is_some(),
        };
        if let Some(token) = &token {
            if !encrypted && !address.is_local() && !allow_plaintext_token {
                return Err(ConfigError::PlaintextToken(address));
            }
            token.header()?;
        }
        let mut endpoint = Endpoint::from_shared(address.uri(encrypted))
            .map_err(|e| ConfigError::BadAddress(address, e))?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls_config(tls)?).map_err(ConfigError::BadTls)?;
        }
        Ok(Self { inner: PreloadServiceClient::new(endpoint.connect_lazy()), token, call_timeout })
    }

    pub async fn start_load(&self, request: StartLoadRequest) -> Result<Load, Status> {
        let (mut inner, request) = self.prepare(request)?;
        self.unary(inner.start_load(request)).await
    }

    pub async fn get_load(&self, load_id: &str) -> Result<Load, Status> {
        let (mut inner, request) = self.prepare(GetLoadRequest { load_id: load_id.to_owned() })?;
        self.unary(inner.get_load(request)).await
    }

    pub async fn list_loads(&self, request: ListLoadsRequest) -> Result<ListLoadsResponse, Status> {
        let (mut inner, request) = self.prepare(request)?;
        self.unary(inner.list_loads(request)).await
    }

    pub async fn cancel_load(&self, load_id: &str) -> Result<Load, Status> {
        let (mut inner, request) = self.prepare(CancelLoadRequest { load_id: load_id.to_owned() })?;
        self.unary(inner.cancel_load(request)).await
    }

    /// Returns after the check, which takes as long as a listing of the load's path.
    pub async fn verify_load(&self, load_id: &str) -> Result<Load, Status> {
        let (mut inner, request) = self.prepare(VerifyLoadRequest { load_id: load_id.to_owned() })?;
        let deadline = self.call_timeout.max(VERIFY_TIMEOUT);
        within(deadline, inner.verify_load(request)).await
    }

    pub async fn list_failures(&self, request: ListFailuresRequest) -> Result<ListFailuresResponse, Status> {
        let (mut inner, request) = self.prepare(request)?;
        self.unary(inner.list_failures(request)).await
    }

    pub async fn delete_load(&self, load_id: &str) -> Result<(), Status> {
        let (mut inner, request) = self.prepare(DeleteLoadRequest { load_id: load_id.to_owned() })?;
        self.unary(inner.delete_load(request)).await
    }

    /// Follows a load until it has ended, across cuts and restarts of the sidecar.
    pub fn watch_load(&self, load_id: &str, options: WatchOptions) -> Watch {
        Watch::new(self.clone(), load_id.to_owned(), options)
    }

    async fn open_watch(&self, request: WatchLoadRequest) -> Result<Streaming<Load>, Status> {
        let (mut inner, request) = self.prepare(request)?;
        Ok(inner.watch_load(request).await?.into_inner())
    }

    /// A handle for one call and its request with the token, which is read again for every call.
    fn prepare<T>(&self, message: T) -> Result<(PreloadServiceClient<Channel>, Request<T>), Status> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let header = token.header().map_err(|e| Status::unauthenticated(e.to_string()))?;
            request.metadata_mut().insert("authorization", header);
        }
        Ok((self.inner.clone(), request))
    }

    async fn unary<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        within(self.call_timeout, call).await
    }
}

/// tonic's own timeout ends with the response headers; this one covers the whole answer.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

fn tls_config(tls: Tls) -> Result<ClientTlsConfig, ConfigError> {
    let Tls { ca, identity, server_name } = tls;
    require_certificate(&ca, "the authority")?;
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = identity {
        require_certificate(&certificate, "the client")?;
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

/// rustls takes a PEM without certificates for an empty list, and then every handshake fails.
fn require_certificate(pem: &[u8], whose: &'static str) -> Result<(), ConfigError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(BEGIN.len()).any(|w| w == BEGIN) { Ok(()) } else { Err(ConfigError::NoCertificate(whose)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str) -> ClientConfig {
        ClientConfig::new(address.parse().unwrap())
    }

    fn tls() -> Option<Tls> {
        Some(Tls { ca: b"-----BEGIN CERTIFICATE-----".to_vec(), identity: None, server_name: None })
    }

    #[tokio::test]
    async fn a_token_stays_on_this_host_or_under_tls() {
        let token = Some(Token::Value("secret".into()));
        for address in ["10.1.2.3:29700", "http://sidecar.example:29700"] {
            let config = ClientConfig { token: token.clone(), ..config(address) };
            let error = Client::new(config.clone()).unwrap_err();
            assert!(matches!(error, ConfigError::PlaintextToken(_)), "{address}: {error}");
            Client::new(ClientConfig { allow_plaintext_token: true, ..config }).unwrap();
        }
        for address in ["127.0.0.9:1", "localhost:1", "[::1]:1", "unix:/run/preload.sock"] {
            Client::new(ClientConfig { token: token.clone(), ..config(address) }).unwrap();
        }
    }

    #[tokio::test]
    async fn scheme_and_certificates_must_agree() {
        let error = Client::new(config("https://h:1")).unwrap_err();
        assert!(matches!(error, ConfigError::NoAuthority(_)), "{error}");
        for address in ["http://h:1", "unix:/run/preload.sock"] {
            let error = Client::new(ClientConfig { tls: tls(), ..config(address) }).unwrap_err();
            assert!(matches!(error, ConfigError::NotEncrypted(_)), "{error}");
        }
        let empty = Tls { ca: b"no certificate".to_vec(), identity: None, server_name: None };
        let error = Client::new(ClientConfig { tls: Some(empty), ..config("h:1") }).unwrap_err();
        assert!(matches!(error, ConfigError::NoCertificate(_)), "{error}");
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let mut config = config("h:1");
        config.token = Some(Token::Value("secret".into()));
        config.tls =
            Some(Tls { ca: vec![], identity: Some((vec![115; 6], vec![115; 6])), server_name: None });
        let text = format!("{config:?}");
        assert!(!text.contains("secret") && !text.contains("115"), "{text}");
    }
}
