//! Bytes of files become what TLS and requests are judged by. No I/O.

use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{
    CredentialsError,
    files::{Content, Contents},
};

/// gRPC, and nothing else.
const ALPN: &[u8] = b"h2";

/// One usable set.
#[derive(Default)]
pub struct Keys {
    pub(super) tls: Option<Arc<ServerConfig>>,
    tokens: Option<Tokens>,
    certificates: bool,
}

struct Tokens(Vec<Vec<u8>>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

/// What of it people can use; never a secret, nor pages of cipher suites.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("tls", &self.tls.is_some())
            .field("tokens", &self.tokens)
            .field("client_certificates", &self.certificates)
            .finish()
    }
}

impl Keys {
    pub(super) fn new(contents: &Contents) -> Result<Self, CredentialsError> {
        let tokens = contents.tokens.as_ref().map(|text| tokens(text, contents.min_token)).transpose()?;
        let tls = match &contents.tls {
            Some((certificate, key)) => {
                Some(tls(certificate, key, contents.client_ca.as_ref(), tokens.is_some())?)
            }
            None => None,
        };
        Ok(Self { tls, tokens, certificates: contents.client_ca.is_some() })
    }

    /// Bearer tokens let in.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Client certificates let in; TLS has checked those that come in.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        self.certificates
    }

    /// Everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.has_tokens() && !self.certificates
    }

    /// Takes as long whichever token it is, or none.
    #[must_use]
    pub fn accepts(&self, given: &[u8]) -> bool {
        let all = self.tokens.iter().flat_map(|tokens| &tokens.0);
        all.fold(Choice::from(0), |found, token| found | token.ct_eq(given)).into()
    }
}

/// One a line. Never quotes what it read.
fn tokens(content: &Content, min: usize) -> Result<Tokens, CredentialsError> {
    let mut tokens = Vec::new();
    for (number, line) in content.bytes.split(|&byte| byte == b'\n').enumerate() {
        let token = line.trim_ascii();
        let line = number + 1;
        if token.is_empty() {
            continue;
        }
        if token.len() < min {
            return Err(unusable(
                content,
                format!("the token of line {line} has fewer than {min} characters"),
            ));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(unusable(content, format!("the token of line {line} has a space or no ASCII")));
        }
        tokens.push(token.to_vec());
    }
    if tokens.is_empty() { Err(unusable(content, "has no token")) } else { Ok(Tokens(tokens)) }
}

fn tls(
    certificate: &Content,
    key: &Content,
    client_ca: Option<&Content>,
    client_may_do_without: bool,
) -> Result<Arc<ServerConfig>, CredentialsError> {
    let provider = Arc::new(ring::default_provider());
    // TLS 1.2 and 1.3: rustls has no older ones.
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in chain(authority)? {
                roots.add(certificate).map_err(|error| unusable(authority, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if client_may_do_without { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(authority, error))?)
        }
    };
    let private = PrivateKeyDer::from_pem_slice(&key.bytes)
        .map_err(|_never_quoted| unusable(key, "has no private key in PEM"))?;
    let mut config = builder.with_single_cert(chain(certificate)?, private).map_err(|error| {
        let problem = format!("does not go with the key in {}: {error}", key.file);
        unusable(certificate, problem)
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn chain(content: &Content) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(content, "has no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(content, format!("is no PEM: {error}"))),
    }
}

fn unusable(content: &Content, problem: impl ToString) -> CredentialsError {
    CredentialsError::Unusable { file: content.file.clone(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn content(file: &str, text: &str) -> Content {
        Content { file: file.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    fn identity() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key);
        (certificate.unwrap().pem(), key.serialize_pem())
    }

    fn contents(tls: Option<(&str, &str)>, client_ca: Option<&str>, tokens: Option<&str>) -> Contents {
        Contents {
            tls: tls.map(|(certificate, key)| (content("tls.crt", certificate), content("tls.key", key))),
            client_ca: client_ca.map(|text| content("client-ca.crt", text)),
            tokens: tokens.map(|text| content("tokens", text)),
            min_token: 16,
        }
    }

    fn refusal(contents: &Contents) -> (String, String) {
        match Keys::new(contents).unwrap_err() {
            CredentialsError::Unusable { file, problem } => (file, problem),
            CredentialsError::Missing { files } => panic!("{files:?}"),
        }
    }

    #[test]
    fn each_token_of_a_file_opens_and_nothing_else() {
        let keys =
            Keys::new(&contents(None, None, Some("0123456789abcdef\n\n  fedcba9876543210\r\n"))).unwrap();
        for good in ["0123456789abcdef", "fedcba9876543210"] {
            assert!(keys.accepts(good.as_bytes()), "{good}");
        }
        for bad in ["", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdeffedcba9876543210"] {
            assert!(!keys.accepts(bad.as_bytes()), "{bad}");
        }
        assert!(!Keys::default().accepts(b"") && Keys::default().is_open() && !keys.is_open());
    }

    #[test]
    fn bad_tokens_are_refused_by_line_and_never_quoted() {
        for (text, said) in [
            ("0123456789abcdef\nshort-secret", "line 2 has fewer than 16"),
            ("", "no token"),
            (" \n", "no token"),
            ("0123456789abcdef secret", "line 1 has a space"),
        ] {
            let (file, problem) = refusal(&contents(None, None, Some(text)));
            assert_eq!(file, "tokens");
            assert!(problem.contains(said) && !problem.contains("secret"), "{problem}");
        }
        let keys = Keys::new(&contents(None, None, Some("0123456789abcdef"))).unwrap();
        assert!(!format!("{keys:?}").contains("0123"));
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let ((certificate, key), (_, other)) = (identity(), identity());
        let keys = Keys::new(&contents(Some((&certificate, &key)), Some(&certificate), None)).unwrap();
        assert!(keys.tls.is_some() && keys.has_certificates() && !keys.has_tokens());
        let key_in_place = contents(Some((&certificate, &other)), None, None);
        let (file, problem) = refusal(&key_in_place);
        assert!(file == "tls.crt" && problem.contains("tls.key"), "{file} {problem}");
        for (bad, named) in [
            (contents(Some(("nothing", &key)), None, None), "tls.crt"),
            (contents(Some((&certificate, "nothing")), None, None), "tls.key"),
            (contents(Some((&certificate, &certificate)), None, None), "tls.key"),
            (contents(Some((&certificate, &key)), Some("nothing"), None), "client-ca.crt"),
            (contents(Some((&certificate, &key)), Some(&key), None), "client-ca.crt"),
        ] {
            let (file, problem) = refusal(&bad);
            assert_eq!(file, named, "{problem}");
            let secret = key.lines().nth(1).unwrap();
            assert!(!problem.contains(secret), "{problem}");
        }
    }
}
