//! A name server that knows one name. It listens on port 53, which resolvers cannot be told to change, at an
//! address that only one sandbox has.

use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const A: [u8; 2] = [0, 1];
const HEADER: usize = 12;

/// Answers until it is dropped.
#[derive(Debug)]
pub struct NameServer(JoinHandle<()>);

impl NameServer {
    /// `name`, such as `master.test`, is at `at`; nothing else exists.
    pub async fn start(address: &str, name: &str, at: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53)).await;
        let socket = socket.context("listening on port 53 needs root: run 'sudo make test'")?;
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        let wire: Vec<u8> = labels.chain([0]).collect();
        Ok(Self(tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                if let Some(answer) = answer(&query[..length], &wire, at) {
                    // An error: whoever asked is gone.
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        })))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `None`: no query.
fn answer(query: &[u8], name: &[u8], at: Ipv4Addr) -> Option<Vec<u8>> {
    let (header, rest) = query.split_at_checked(HEADER)?;
    let end = rest.iter().position(|&byte| byte == 0)? + 1;
    let (asked, kind) = (rest.get(..end)?, rest.get(end..end + 4)?);
    let known = asked.eq_ignore_ascii_case(name);
    let answers = u8::from(known && kind[..2] == A);
    // A response, recursion available; NXDOMAIN for other names, and no answer for other kinds of ours.
    let code = if known { 0x80 } else { 0x83 };
    let mut reply = vec![header[0], header[1], 0x81, code, 0, 1, 0, answers, 0, 0, 0, 0];
    reply.extend_from_slice(asked);
    reply.extend_from_slice(kind);
    if answers == 1 {
        // The name of the question, A, IN, one second, four bytes.
        reply.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(at.octets());
    }
    Some(reply)
}
