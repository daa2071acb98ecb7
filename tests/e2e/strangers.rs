//! Who is not let in, each in their own way: refused before anything is done. And where else one could knock.

use std::fs;
use std::time::Duration;

use alluxio_preload_api::client::{Client, ClientConfig, Token};
use alluxio_preload_api::v1::ListLoadsRequest;
use anyhow::{Context, Result};
use preload_tests::{Authority, Sandbox, Secret, Setup, Sidecar, load, sockets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::credentials::client;

const TOKEN: &str = "a-token-that-counts-0123456789";

/// A sidecar that lets in one token, and client certificates of `authority`.
struct House<'a> {
    authority: Authority,
    sidecar: Sidecar<'a>,
}

impl<'a> House<'a> {
    async fn new(sandbox: &'a Sandbox) -> Result<Self> {
        let authority = Authority::new(&sandbox.folder("tls")?)?;
        let server = authority.identity(&["localhost"])?;
        let secret = Secret::new(sandbox)?;
        secret.put(&[
            ("tls.crt", &fs::read(&server.certificate)?),
            ("tls.key", &fs::read(&server.key)?),
            ("tokens", TOKEN.as_bytes()),
            ("client-ca.crt", &fs::read(authority.certificate())?),
        ])?;
        let setup = Setup::alone(sandbox).argument("--credentials").argument(secret.directory());
        Ok(Self { authority, sidecar: setup.start().await? })
    }

    /// StartLoad by `stranger` fails, and nobody who may look finds a load.
    async fn refuses(&self, stranger: &Client) -> Result<Status> {
        let refused = stranger.start_load(load("theirs", "/theirs", 1)).await;
        let status = refused.err().context("the stranger was let in")?;
        self.holds_nothing().await?;
        Ok(status)
    }

    async fn holds_nothing(&self) -> Result<()> {
        let owner = client(&self.sidecar, &self.authority, None, Some(TOKEN))?;
        assert_eq!(owner.list_loads(ListLoadsRequest::default()).await?.loads, Vec::new());
        self.sidecar.assert_no_errors()
    }
}

#[tokio::test]
async fn nobody_without_credentials() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let status = house.refuses(&client(&house.sidecar, &house.authority, None, None)?).await?;
    assert_eq!(status.code(), Code::Unauthenticated);
    Ok(())
}

#[tokio::test]
async fn nobody_with_a_wrong_token() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    for wrong in [&TOKEN[1..], "another-token-0123456789012345", "x"] {
        let status = house.refuses(&client(&house.sidecar, &house.authority, None, Some(wrong))?).await?;
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong}");
        assert!(!status.message().contains(TOKEN));
    }
    Ok(())
}

#[tokio::test]
async fn nobody_with_a_certificate_of_another_authority() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let stranger = Authority::new(&sandbox.folder("stranger")?)?.client("a", "b")?;
    // Not with a good token either: who shows a false certificate is no friend.
    for token in [None, Some(TOKEN)] {
        house.refuses(&client(&house.sidecar, &house.authority, Some(&stranger), token)?).await?;
    }
    let friend = house.authority.client("a", "b")?;
    client(&house.sidecar, &house.authority, Some(&friend), None)?.start_load(load("a", "/a", 1)).await?;
    Ok(())
}

#[tokio::test]
async fn nobody_with_a_certificate_that_has_expired() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let expired = house.authority.expired()?;
    let status = house.refuses(&client(&house.sidecar, &house.authority, Some(&expired), None)?).await?;
    assert_ne!(status.code(), Code::Unauthenticated, "TLS refuses it, before any call: {status:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_in_plain_text() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut config = ClientConfig::new(house.sidecar.address().parse()?);
    config.token = Some(Token::Value(TOKEN.to_owned()));
    let status = house.refuses(&Client::new(config)?).await?;
    assert_ne!(status.code(), Code::Unauthenticated, "it is refused before any call: {status:?}");
    Ok(())
}

/// What a client that knows nothing newer than `minor` (1: TLS 1.0, 2: TLS 1.1) begins with.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    // No session; ECDHE-ECDSA and ECDHE-RSA with AES-128-CBC, RSA with AES-128-CBC; no compression.
    body.extend([0, 0, 6, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    // P-256, uncompressed points.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0];
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

async fn is_refused_by_protocol(minor: u8) -> Result<()> {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const HANDSHAKE_FAILURE: u8 = 40;
    const PROTOCOL_VERSION: u8 = 70;
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut stream = TcpStream::connect(house.sidecar.address()).await?;
    stream.write_all(&client_hello(minor)).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await??;
    // Such clients know no signature algorithms either, which may be noticed first.
    let [ALERT, 3, _, 0, 2, FATAL, HANDSHAKE_FAILURE | PROTOCOL_VERSION] = answer[..] else {
        anyhow::bail!("no fatal alert: {answer:?}")
    };
    house.holds_nothing().await
}

#[tokio::test]
async fn nobody_with_tls_1_0() -> Result<()> {
    is_refused_by_protocol(1).await
}

#[tokio::test]
async fn nobody_with_tls_1_1() -> Result<()> {
    is_refused_by_protocol(2).await
}

#[tokio::test]
async fn who_never_ends_a_handshake_holds_up_nobody() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(house.sidecar.address()).await?;
        stream.write_all(&client_hello(3)[..20]).await?;
        idle.push(stream);
    }
    house.holds_nothing().await?;
    // They are cut in the end.
    for mut stream in idle {
        let mut rest = Vec::new();
        // An error is an end too.
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_else_listens() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let socket = sandbox.directory().join("s.sock");
    let sidecar = Setup::alone(&sandbox).argument("--unix-socket").argument(&socket).start().await?;
    // With connections to Alluxio tried, and a load that waits.
    sidecar.start_load(load("a", "/a", 1)).await?;
    sidecar.in_state("a", alluxio_preload_api::v1::load::State::Waiting).await?;
    let port = |address: &str| format!("tcp {}", address.rsplit(':').next().unwrap_or_default());
    // The kernel keeps the name that a socket was bound by, which is a private one at first.
    let private = format!("unix {}", sandbox.directory().join("s.").display());
    let found = sockets::listening(sidecar.pid()?)?;
    for wanted in [port(sidecar.address()), port(sidecar.admin_address()), private] {
        assert!(found.iter().any(|found| found.starts_with(&wanted)), "{wanted} is not among {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
    Ok(())
}
