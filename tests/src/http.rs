//! The smallest HTTP client that reads the JSON pages of Alluxio's web ports and our admin port.

use anyhow::{Context, Result, bail};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(30);

/// Status code and body of `GET http://{address}{target}`. HTTP/1.0, so that the end of the connection is the
/// end of the body.
pub async fn get(address: &str, target: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        std::io::Result::Ok(response)
    };
    let response = tokio::time::timeout(LIMIT, exchange).await;
    let response =
        response.context("no answer in time")?.with_context(|| format!("GET {address}{target}"))?;
    let response = String::from_utf8_lossy(&response);
    let Some((head, body)) = response.split_once("\r\n\r\n") else { bail!("{address} speaks no HTTP") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.with_context(|| format!("no status in {head:?}"))?, body.to_owned()))
}

/// The body as JSON; an error unless the status is 200.
pub async fn get_json(address: &str, target: &str) -> Result<serde_json::Value> {
    let (status, body) = get(address, target).await?;
    if status != 200 {
        bail!("GET {address}{target}: status {status}: {body}");
    }
    serde_json::from_str(&body).with_context(|| format!("GET {address}{target}: no JSON"))
}

/// Everything but unreserved characters and `/` as `%XX`.
pub fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
