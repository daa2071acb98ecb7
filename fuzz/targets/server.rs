//! A server that answers what it is told to.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{LazyLock, Mutex},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// Frame of an empty message.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];
/// SaslMessage { message_type: SUCCESS }, field 1.
const SASL_SUCCESS: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// What is answered to a call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// A gRPC status; `None`: the stream just ends.
    status: Option<u8>,
    /// For authentication and version too; else they are answered as they should be.
    handshake_too: bool,
    body: Bytes,
}

impl Answer {
    pub fn new(end: u8, body: &[u8]) -> Self {
        let status = (end & 0x40 == 0).then_some(end & 0x1f);
        Self { status, handshake_too: end & 0x80 != 0, body: Bytes::copy_from_slice(body) }
    }
}

/// One after the other; the last one stays.
pub static ANSWERS: Mutex<VecDeque<Answer>> = Mutex::new(VecDeque::new());
/// What was sent since [`forget`], but for handshakes.
static SENT: Mutex<Vec<Answer>> = Mutex::new(Vec::new());

pub static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("a port");
    let app = axum::Router::new().fallback(async |request: Request<Body>| answer(&request));
    RUNTIME.spawn(async move {
        let server = Server::builder().add_routes(Routes::from(app));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.serve_with_incoming(incoming).await.expect("a server");
    });
    address
});

pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

pub fn forget() {
    SENT.lock().expect("nobody panicked").clear();
}

/// Of the last answer, if one was sent and had one.
pub fn last_status() -> Option<u8> {
    SENT.lock().expect("nobody panicked").last().and_then(|answer| answer.status)
}

/// Bytes of the longest answer.
pub fn longest() -> usize {
    SENT.lock().expect("nobody panicked").iter().map(|answer| answer.body.len()).max().unwrap_or(0)
}

fn next() -> Option<Answer> {
    let mut answers = ANSWERS.lock().expect("nobody panicked");
    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
}

fn answer(request: &Request<Body>) -> Response<Body> {
    let handshake = match request.uri().path().rsplit('/').next() {
        Some("authenticate") => Some(SASL_SUCCESS),
        Some("getServiceVersion") => Some(EMPTY),
        _ => None,
    };
    let spoiled = ANSWERS.lock().expect("nobody panicked").front().is_some_and(|answer| answer.handshake_too);
    let answer = match handshake {
        Some(known) if !spoiled => Answer::new(0, known),
        _ => next().unwrap_or(Answer::new(0, EMPTY)),
    };
    if handshake.is_none() {
        SENT.lock().expect("nobody panicked").push(answer.clone());
    }
    let mut frames = vec![Ok::<_, Infallible>(Frame::data(answer.body))];
    if let Some(status) = answer.status {
        let status = HeaderValue::from(u16::from(status));
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body).expect("a response")
}
