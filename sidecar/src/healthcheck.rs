//! `preload-sidecar healthcheck`: one GET of the admin port, for probes that run a command.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Kubernetes' default for a probe is 1 s; the answer takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// The body of `/readyz` (or `/livez`); an error holds it when the answer is not 200.
pub async fn ask(admin: SocketAddr, live: bool) -> io::Result<String> {
    let path = if live { "/livez" } else { "/readyz" };
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(PATIENCE, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.trim().to_owned())
    } else {
        Err(io::Error::other(body.trim().to_owned()))
    }
}
