//! Who may call: a bearer token from a file, or a client certificate that TLS has checked.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use subtle::ConstantTimeEq;
use tonic::{Request, Status, service::Interceptor};

/// How soon a rotated token is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Checks each request. Clones share the token.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    token: Option<Arc<Mutex<Token>>>,
    certificates: bool,
}

/// A token file, read again when it changes: secrets are rotated without a restart.
struct Token {
    file: PathBuf,
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    /// Without it nobody is let in.
    value: Option<Vec<u8>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Authentication {
    /// With neither, everybody is let in.
    #[must_use]
    pub fn new(token_file: Option<PathBuf>, certificates: bool) -> Self {
        let token = token_file.map(|file| {
            let mut token = Token { file, looked: None, modified: None, value: None };
            token.refresh();
            Arc::new(Mutex::new(token))
        });
        Self { token, certificates }
    }

    fn is_open(&self) -> bool {
        self.token.is_none() && !self.certificates
    }
}

impl Interceptor for Authentication {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.is_open()
            || (self.certificates && request.peer_certs().is_some_and(|certs| !certs.is_empty()))
        {
            return Ok(request);
        }
        let given = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let accepted = match (&self.token, given) {
            (Some(token), Some(given)) => {
                let mut token = token.lock().unwrap_or_else(PoisonError::into_inner);
                token.refresh();
                token.value.as_ref().is_some_and(|value| value.ct_eq(given).into())
            }
            _ => false,
        };
        if accepted {
            return Ok(request);
        }
        let message = match (self.token.is_some(), self.certificates) {
            (true, true) => "give a valid bearer token (authorization: Bearer ...) or a client certificate",
            (true, false) => "give a valid bearer token (authorization: Bearer ...)",
            (false, _) => "give a client certificate",
        };
        Err(Status::unauthenticated(message))
    }
}

impl Token {
    fn refresh(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let modified = fs::metadata(&self.file).and_then(|meta| meta.modified());
        if self.value.is_some() && modified.as_ref().ok() == self.modified.as_ref() {
            return;
        }
        self.modified = modified.ok();
        match fs::read(&self.file) {
            Ok(bytes) => {
                let value = bytes.trim_ascii();
                self.value = (!value.is_empty()).then(|| value.to_vec());
                if self.value.is_none() {
                    tracing::error!(file = %self.file.display(), "the token file is empty; every caller is refused");
                }
            }
            Err(error) => {
                self.value = None;
                tracing::error!(file = %self.file.display(), %error, "the token file cannot be read; every caller is refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    }

    #[test]
    fn only_the_token_opens() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\n").unwrap();
        let mut authentication = Authentication::new(Some(file.path().to_owned()), false);
        assert!(authentication.call(request(Some("Bearer secret"))).is_ok());
        for bad in [None, Some("secret"), Some("Bearer secre"), Some("Bearer secrets"), Some("Bearer ")] {
            let status = authentication.call(request(bad)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{bad:?}");
        }
    }

    #[test]
    fn a_missing_or_empty_token_file_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut empty = Authentication::new(Some(file.path().to_owned()), false);
        assert!(empty.call(request(Some("Bearer "))).is_err());
        let mut missing = Authentication::new(Some("/nowhere/token".into()), false);
        assert!(missing.call(request(Some("Bearer x"))).is_err());
    }

    #[test]
    fn without_any_secret_all_are_let_in() {
        assert!(Authentication::default().call(request(None)).is_ok());
    }
}
