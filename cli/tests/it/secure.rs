//! Tokens and certificates of the real program.

use crate::{
    fixture::{preloadctl, queued, then},
    server::{Script, Server, Step, sends},
};
use alluxio_preload_api::{
    client::{Backoff, Client, ClientConfig, Token, WatchOptions},
    v1::load::State,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::MetadataMap,
    transport::{Certificate, Identity, ServerTlsConfig},
};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for these names, as PEM.
fn issue(authority: &Issuer, names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn getting() -> Script {
    Script { get: Box::new(|_, _| Ok(queued())), ..Script::default() }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_certificate_must_come_from_the_authority_and_name_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = authority();
    let ca = write(&folder, "ca.pem", &trusted.pem());
    let other = write(&folder, "other.pem", &authority().pem());
    let (certificate, key) = issue(&trusted, &["sidecar.example"]);
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let server = Server::tls(tls, getting());
    let https = format!("https://{}", server.address);
    for (address, args, code) in [
        (&https, &["--tls-ca", &ca, "--tls-server-name", "sidecar.example", "get", "a"][..], 0),
        // Certificates turn a bare address into https.
        (&server.address, &["--tls-ca", &ca, "--tls-server-name", "sidecar.example", "get", "a"], 0),
        (&https, &["--tls-ca", &ca, "get", "a"], 3),
        (&https, &["--tls-ca", &other, "--tls-server-name", "sidecar.example", "get", "a"], 3),
        (&server.address, &["get", "a"], 3),
    ] {
        let ran = preloadctl(address, args).await;
        assert_eq!(ran.code, Some(code), "{address} {args:?}: {ran:?}");
        if code == 3 && args.len() > 2 {
            assert!(ran.stderr.contains("invalid peer certificate"), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_wants_a_client_certificate_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = authority();
    let ca = write(&folder, "ca.pem", &trusted.pem());
    let (certificate, key) = issue(&trusted, &["127.0.61.1"]);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(trusted.pem()));
    let server = Server::tls(tls, getting());
    let (certificate, key) = issue(&trusted, &["client"]);
    let (certificate, key) = (write(&folder, "c.pem", &certificate), write(&folder, "k.pem", &key));
    let with = ["--tls-ca", &ca, "--tls-cert", &certificate, "--tls-key", &key, "get", "a"];
    let ran = preloadctl(&server.address, &with).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = preloadctl(&server.address, &["--tls-ca", &ca, "get", "a"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
}

#[tokio::test]
async fn the_token_is_sent_as_bearer() {
    let folder = tempfile::tempdir().unwrap();
    let token = write(&folder, "token", "s3cret\n");
    let server = Server::tcp(Script {
        get: Box::new(|_, request| match authorization(request.metadata()) {
            Some("Bearer s3cret") => Ok(queued()),
            _ => Err(Status::unauthenticated("no token")),
        }),
        ..Script::default()
    });
    assert_eq!(preloadctl(&server.address, &["--token-file", &token, "get", "a"]).await.code, Some(0));
    let ran = preloadctl(&server.address, &["get", "a"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
}

#[tokio::test]
async fn a_token_for_another_host_in_plain_text_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let token = write(&folder, "token", "s3cret");
    let ran = preloadctl("http://sidecar.example:29700", &["--token-file", &token, "get", "a"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("plain text") && !ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_rotated_token_is_used_when_the_watch_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "token", "first");
    let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let (tokens, path) = (seen.clone(), file.clone());
    let watch = move |call, request: Request<_>| {
        tokens.lock().unwrap().push(authorization(request.metadata()).map(str::to_owned));
        if call > 0 {
            return Ok(sends(&[then(&queued(), State::Loaded)]));
        }
        fs::write(Path::new(&path), "second").unwrap();
        Ok(vec![Step::Die])
    };
    let server = Server::tcp(Script { watch: Box::new(watch), ..Script::default() });
    let mut config = ClientConfig::new(server.address.parse().unwrap());
    config.token = Some(Token::File(file.into()));
    let backoff = Backoff { initial: Duration::from_millis(1), ..Backoff::default() };
    let options = WatchOptions { backoff, ..WatchOptions::default() };
    let mut watch = Client::new(config).unwrap().watch_load("a", options);
    while let Some(update) = watch.next().await {
        update.unwrap();
    }
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(*seen.lock().unwrap(), [bearer("first"), bearer("second")]);
}
