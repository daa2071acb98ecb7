//! Credentials that come late, change while connections are open, or are broken: `--credentials` and the files
//! that are named one by one.

use std::fs;
use std::path::Path;

use alluxio_preload_api::client::{Client, ClientConfig, Tls, Token};
use alluxio_preload_api::v1::{GetLoadRequest, ListLoadsRequest, WatchLoadRequest};
use anyhow::{Context, Result};
use preload_tests::certificates::Identity;
use preload_tests::{Authority, Exit, Sandbox, Secret, Setup, Sidecar, http, load, wait};
use tonic::Code;

const FIRST: &str = "first-token-0123456789";
const SECOND: &str = "second-token-0123456789";

/// A client on a connection of its own.
pub(crate) fn client(
    sidecar: &Sidecar<'_>,
    authority: &Authority,
    identity: Option<&Identity>,
    token: Option<&str>,
) -> Result<Client> {
    let mut config = ClientConfig::new(sidecar.address().parse()?);
    let pair = |identity: &Identity| {
        Ok::<_, anyhow::Error>((fs::read(&identity.certificate)?, fs::read(&identity.key)?))
    };
    let identity = identity.map(pair).transpose()?;
    let ca = fs::read(authority.certificate())?;
    config.tls = Some(Tls { ca, identity, server_name: Some("localhost".to_owned()) });
    config.token = token.map(|token| Token::Value(token.to_owned()));
    Ok(Client::new(config)?)
}

/// Status and body of `/readyz`.
async fn ready(sidecar: &Sidecar<'_>) -> Result<(u16, String)> {
    http::get(sidecar.admin_address(), "/readyz").await
}

/// Waits until `/readyz` says `all` with that status.
pub(crate) async fn says(sidecar: &Sidecar<'_>, status: u16, all: &[&str]) -> Result<String> {
    wait::until(&format!("/readyz to say {status} {all:?}"), wait::LIMIT, async || {
        let (now, body) = ready(sidecar).await?;
        anyhow::ensure!(now == status && all.iter().all(|part| body.contains(part)), "{now}: {body}");
        Ok(Some(body))
    })
    .await
}

async fn metric(sidecar: &Sidecar<'_>, line: &str) -> Result<()> {
    let (_, text) = http::get(sidecar.admin_address(), "/metrics").await?;
    anyhow::ensure!(text.lines().any(|found| found == line), "no {line} in {text}");
    Ok(())
}

fn start<'a>(sandbox: &'a Sandbox, secret: &Secret) -> Result<Sidecar<'a>> {
    Setup::alone(sandbox).argument("--credentials").argument(secret.directory()).spawn()
}

#[tokio::test]
async fn a_secret_that_comes_late_is_used_without_a_restart() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let authority = Authority::new(&sandbox.folder("tls")?)?;
    let server = authority.identity(&["localhost"])?;
    let secret = Secret::new(&sandbox)?;
    let mut sidecar = start(&sandbox, &secret)?;
    let named = |name: &str| secret.directory().join(name).display().to_string();
    let (crt, key, tokens, ca) =
        (named("tls.crt"), named("tls.key"), named("tokens"), named("client-ca.crt"));

    says(&sidecar, 503, &["waiting for credentials", &crt, &key, &tokens, &ca]).await?;
    assert_eq!(http::get(sidecar.admin_address(), "/livez").await?.0, 200);
    metric(&sidecar, "preload_credentials_usable 0").await?;
    metric(&sidecar, "preload_ready 0").await?;
    let early = client(&sidecar, &authority, None, Some(FIRST))?;
    let refused = early.start_load(load("early", "/early", 1)).await;
    assert_eq!(refused.expect_err("nobody is let in").code(), Code::Unavailable);

    let certificate = fs::read(&server.certificate)?;
    secret.put(&[("tls.crt", &certificate)])?;
    says(&sidecar, 503, &[&format!("credentials: {key}, {tokens} (or {ca}) are missing")]).await?;
    secret.put(&[("tls.crt", &certificate), ("tls.key", &fs::read(&server.key)?)])?;
    says(&sidecar, 503, &[&format!("{tokens} (or {ca}) is missing")]).await?;
    secret.put_token(&server, "too-short\n")?;
    let words = says(&sidecar, 503, &[&tokens, "line 1", "16 characters"]).await?;
    assert!(!words.contains("too-short"), "{words}");

    secret.put_token(&server, FIRST)?;
    sidecar.ready().await?;
    // The same client connects again by itself.
    assert_eq!(early.list_loads(ListLoadsRequest::default()).await?.loads, Vec::new());
    early.start_load(load("a", "/a", 1)).await?;
    metric(&sidecar, "preload_credentials_usable 1").await?;
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    let log = sidecar.log();
    assert!(!log.contains(FIRST) && !log.contains("too-short"), "a token is in the log");
    assert_eq!(log.matches("16 characters").count(), 1, "said once per change");
    Ok(())
}

#[tokio::test]
async fn rotation_counts_for_new_connections_and_old_ones_go_on() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (old, new) = (Authority::new(&sandbox.folder("old")?)?, Authority::new(&sandbox.folder("new")?)?);
    let secret = Secret::new(&sandbox)?;
    secret.put_token(&old.identity(&["localhost"])?, FIRST)?;
    let mut sidecar = start(&sandbox, &secret)?;
    sidecar.ready().await?;
    let before = client(&sidecar, &old, None, Some(FIRST))?;
    before.start_load(load("a", "/a", 1)).await?;
    let mut stream = open_watch(&sidecar, &old).await?;
    stream.message().await?.context("no first message")?;

    // Both tokens for a while, as a controller does that has many to tell.
    secret.put_token(&new.identity(&["localhost"])?, &format!("{SECOND}\n{FIRST}\n"))?;
    let after = wait::until("the new certificate", wait::LIMIT, async || {
        let after = client(&sidecar, &new, None, Some(SECOND))?;
        after.get_load("a").await?;
        Ok(Some(after))
    })
    .await?;
    let stranger = client(&sidecar, &old, None, Some(FIRST))?.get_load("a").await;
    assert!(stranger.is_err(), "a new connection got the old certificate");
    before.get_load("a").await.context("the old connection was cut")?;

    secret.put_token(&new.identity(&["localhost"])?, SECOND)?;
    wait::until("the old token to be refused", wait::LIMIT, async || match before.get_load("a").await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(Some(())),
        other => anyhow::bail!("{other:?}"),
    })
    .await?;
    // A stream that was let in is not cut.
    after.cancel_load("a").await?;
    while let Some(load) = stream.message().await? {
        assert_eq!(load.id, "a");
    }
    sidecar.assert_no_errors()
}

async fn open_watch(
    sidecar: &Sidecar<'_>,
    authority: &Authority,
) -> Result<tonic::Streaming<alluxio_preload_api::v1::Load>> {
    use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
    let pem = fs::read(authority.certificate())?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", sidecar.address()))?.tls_config(tls)?;
    let mut request =
        tonic::Request::new(WatchLoadRequest { load_id: "a".to_owned(), ..WatchLoadRequest::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {FIRST}").parse()?);
    Ok(PreloadServiceClient::new(endpoint.connect().await?).watch_load(request).await?.into_inner())
}

#[tokio::test]
async fn a_broken_secret_leaves_the_last_good_one_in_use() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let authority = Authority::new(&sandbox.folder("tls")?)?;
    let (server, other) = (authority.identity(&["localhost"])?, authority.identity(&["localhost"])?);
    let secret = Secret::new(&sandbox)?;
    secret.put_token(&server, FIRST)?;
    let mut sidecar = start(&sandbox, &secret)?;
    sidecar.ready().await?;
    let mixed = Identity { certificate: server.certificate.clone(), key: other.key.clone() };
    let (certificate, key) = (fs::read(&server.certificate)?, fs::read(&server.key)?);

    let crt = secret.directory().join("tls.crt").display().to_string();
    let still_served = async || -> Result<()> {
        client(&sidecar, &authority, None, Some(FIRST))?.list_loads(ListLoadsRequest::default()).await?;
        metric(&sidecar, "preload_credentials_usable 0").await?;
        metric(&sidecar, "preload_ready 1").await
    };
    secret.put_token(&mixed, FIRST)?;
    says(&sidecar, 200, &["warning", &crt, "key", "stay in use"]).await?;
    still_served().await?;
    secret.put(&[("tls.crt", b"not PEM"), ("tls.key", &key), ("tokens", FIRST.as_bytes())])?;
    says(&sidecar, 200, &["warning", &crt, "PEM", "stay in use"]).await?;
    still_served().await?;
    // Deleted, as an optional Secret may be.
    secret.put(&[])?;
    says(&sidecar, 200, &["warning", "waiting for credentials", "stay in use"]).await?;
    still_served().await?;

    secret.put(&[("tls.crt", &certificate), ("tls.key", &key), ("tokens", SECOND.as_bytes())])?;
    wait::until("the good one to be used", wait::LIMIT, async || {
        client(&sidecar, &authority, None, Some(SECOND))?.list_loads(ListLoadsRequest::default()).await?;
        Ok(Some(()))
    })
    .await?;
    assert_eq!(ready(&sidecar).await?, (200, "ok\n".to_owned()));
    Ok(())
}

#[tokio::test]
async fn client_certificates_of_a_secret_let_in_and_their_authority_is_rotated() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (old, new) = (Authority::new(&sandbox.folder("old")?)?, Authority::new(&sandbox.folder("new")?)?);
    let server = old.identity(&["localhost"])?;
    let secret = Secret::new(&sandbox)?;
    let put = |authority: &Authority| {
        let (certificate, key) = (fs::read(&server.certificate)?, fs::read(&server.key)?);
        let ca = fs::read(authority.certificate())?;
        secret.put(&[("tls.crt", &certificate), ("tls.key", &key), ("client-ca.crt", &ca)])
    };
    put(&old)?;
    let mut sidecar = start(&sandbox, &secret)?;
    sidecar.ready().await?;
    let (first, second) = (old.client("a", "b")?, new.client("a", "b")?);
    let call = async |identity: Option<&Identity>| {
        client(&sidecar, &old, identity, None)?
            .list_loads(ListLoadsRequest::default())
            .await
            .map_err(anyhow::Error::from)
    };
    call(Some(&first)).await?;
    assert!(call(Some(&second)).await.is_err() && call(None).await.is_err());
    put(&new)?;
    wait::until("the new authority to count", wait::LIMIT, async || call(Some(&second)).await.map(Some))
        .await?;
    assert!(call(Some(&first)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn files_named_one_by_one_are_read_again_too() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (old, new) = (Authority::new(&sandbox.folder("old")?)?, Authority::new(&sandbox.folder("new")?)?);
    let (server, next) = (old.identity(&["localhost"])?, new.identity(&["localhost"])?);
    let token = sandbox.directory().join("token");
    fs::write(&token, "short")?;
    let sidecar =
        Setup::alone(&sandbox).tls(&server).argument("--token-file").argument(&token).start().await?;
    client(&sidecar, &old, None, Some("short"))?.list_loads(ListLoadsRequest::default()).await?;
    // Not at once, as people do it: in between key and certificate differ.
    replace(&next.certificate, &server.certificate)?;
    says(&sidecar, 200, &["warning", "stay in use"]).await?;
    replace(&next.key, &server.key)?;
    wait::until("the new certificate", wait::LIMIT, async || {
        client(&sidecar, &new, None, Some("short"))?.list_loads(ListLoadsRequest::default()).await?;
        Ok(Some(()))
    })
    .await?;
    let missing =
        client(&sidecar, &new, None, Some("short"))?.get_load(&GetLoadRequest::default().load_id).await;
    assert_eq!(missing.expect_err("no id").code(), Code::InvalidArgument);
    Ok(())
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh)?;
    Ok(fs::rename(fresh, to)?)
}
