//! HTTP/2 by hand (RFC 9113, 7541), for what no library would send.

use std::collections::HashSet;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What every connection begins with.
pub(super) fn greeting() -> Vec<u8> {
    let mut greeting = PREFACE.to_vec();
    greeting.extend(frame(SETTINGS, 0, 0, &[]));
    greeting
}

/// The headers of a unary call.
fn fields(path: &str) -> Vec<u8> {
    // Of the static table: :method POST, :scheme http.
    let mut fields = vec![0x83, 0x86];
    // Literals with a name of the table: :path, :authority, content-type. Shorter than 127 bytes each.
    for (name, value) in [(&[0x04_u8][..], path), (&[0x01], "preload"), (&[0x0f, 0x10], "application/grpc")] {
        fields.extend(name);
        literal(&mut fields, value);
    }
    fields.push(0);
    literal(&mut fields, "te");
    literal(&mut fields, "trailers");
    fields
}

fn literal(fields: &mut Vec<u8>, text: &str) {
    fields.push(text.len() as u8);
    fields.extend(text.as_bytes());
}

/// A call with a body that is never sent.
pub(super) fn call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(path))
}

/// The beginning of a call whose headers go on.
pub(super) fn endless_call(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &fields("/preload.v1.PreloadService/GetLoad"))
}

/// A hundred more headers.
pub(super) fn continuation(stream: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    for _ in 0..100 {
        fields.push(0);
        literal(&mut fields, "x-more");
        literal(&mut fields, &"x".repeat(100));
    }
    frame(CONTINUATION, 0, stream, &fields)
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    frame(RST_STREAM, 0, stream, &CANCEL)
}

/// The whole request of a call: one message.
pub(super) fn message(stream: u32, message: &[u8]) -> Vec<u8> {
    const DATA: u8 = 0;
    let mut payload = vec![0];
    payload.extend((message.len() as u32).to_be_bytes());
    payload.extend(message);
    frame(DATA, END_STREAM, stream, &payload)
}

/// A request whose first field is the id of a load.
pub(super) fn load_id(id: &str) -> Vec<u8> {
    let mut message = vec![0x0a];
    literal(&mut message, id);
    message
}

/// A beginning that lets no byte of an answer through.
pub(super) fn greeting_with_shut_windows() -> Vec<u8> {
    const INITIAL_WINDOW_SIZE_0: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let mut greeting = PREFACE.to_vec();
    greeting.extend(frame(SETTINGS, 0, 0, &INITIAL_WINDOW_SIZE_0));
    greeting
}

/// A connection that answers PINGs while it is waited for.
pub(super) struct Pinged {
    stream: TcpStream,
}

impl Pinged {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    pub(super) async fn say(&mut self, words: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(words).await?)
    }

    /// Until as many streams have the head of an answer, or its end.
    pub(super) async fn heads(&mut self, number: u32) -> Result<()> {
        let mut seen = HashSet::new();
        while seen.len() < number as usize {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            match kind {
                HEADERS => drop(seen.insert(u32::from_be_bytes(stream))),
                PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
                _ => {}
            }
        }
        Ok(())
    }
}
