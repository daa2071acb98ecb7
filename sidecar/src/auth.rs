//! Who may call: a bearer token, or a client certificate that TLS has checked.

use tonic::{Request, Status, service::Interceptor};

use crate::credentials::Access;

/// Checks each request against the keys of the moment. Without access to keys everybody is let in.
#[derive(Debug, Clone, Default)]
pub struct Authentication(Option<Access>);

impl Authentication {
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(Some(access))
    }
}

impl Interceptor for Authentication {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(access) = &self.0 else { return Ok(request) };
        let Some(keys) = access.keys() else {
            return Err(Status::unauthenticated("the sidecar has no credentials yet; see its /readyz"));
        };
        let has_certificate = || request.peer_certs().is_some_and(|certificates| !certificates.is_empty());
        if keys.is_open() || (keys.has_certificates() && has_certificate()) {
            return Ok(request);
        }
        let given = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if given.is_some_and(|given| keys.accepts(given)) {
            return Ok(request);
        }
        Err(Status::unauthenticated(match (keys.has_tokens(), keys.has_certificates()) {
            (true, true) => "give a valid bearer token (authorization: Bearer ...) or a client certificate",
            (true, false) => "give a valid bearer token (authorization: Bearer ...)",
            (false, _) => "give a client certificate",
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        credentials::{Follower, Sources},
        metrics::Metrics,
        readiness::Readiness,
    };

    fn request(authorization: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    }

    async fn with_tokens(file: &Path) -> Authentication {
        let sources = Sources::Files { tls: None, client_ca: None, tokens: Some(file.to_owned()) };
        let follower = Follower::new(sources, Readiness::default(), Metrics::new()).await;
        Authentication::new(follower.access())
    }

    #[tokio::test]
    async fn only_the_token_opens() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\n").unwrap();
        let mut authentication = with_tokens(file.path()).await;
        assert!(authentication.call(request(Some("Bearer secret"))).is_ok());
        for bad in [None, Some("secret"), Some("Bearer secre"), Some("Bearer secrets"), Some("Bearer ")] {
            let status = authentication.call(request(bad)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_or_empty_token_file_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/nowhere/token")] {
            let mut authentication = with_tokens(path).await;
            for given in ["Bearer ", "Bearer x"] {
                assert!(authentication.call(request(Some(given))).is_err(), "{path:?}");
            }
        }
    }

    #[test]
    fn without_any_secret_all_are_let_in() {
        assert!(Authentication::default().call(request(None)).is_ok());
    }
}
