//! An Alluxio that is broken, or lies: whatever bytes it answers, the client says what it makes of them, and ends.
//!
//! The first byte of a case chooses the call, the second how the answer ends; the rest is the body of the answer, frames
//! of gRPC and all.
#![no_main]

use std::{
    collections::HashSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use alluxio_client::{Client, Config, File, LoadMetadata, UfsBlock, WorkerAddress};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Request, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::survey::Survey;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// For a call; the server answers at once.
const DEADLINE: Duration = Duration::from_secs(2);
/// Frame of an empty message.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];
/// SaslMessage { message_type: SUCCESS }, field 1.
const SASL_SUCCESS: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// How an answer ends.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// A gRPC status; `None`: the stream just ends.
    status: Option<u8>,
    /// Authentication and version get the same body.
    handshake_too: bool,
}

static ANSWER: Mutex<(Answer, Bytes)> =
    Mutex::new((Answer { status: Some(0), handshake_too: false }, Bytes::new()));

static RUNTIME: LazyLock<(Runtime, SocketAddr)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("a port");
    let app = axum::Router::new().fallback(async |request: Request<Body>| answer(request));
    runtime.spawn(async move {
        let server = Server::builder().add_routes(Routes::from(app));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.serve_with_incoming(incoming).await.expect("a server");
    });
    (runtime, address)
});

fuzz_target!(|bytes: &[u8]| {
    let [call, end, body @ ..] = bytes else { return };
    let status = (end & 0x40 == 0).then_some(end & 0x1f);
    let answer = Answer { status, handshake_too: end & 0x80 != 0 };
    *ANSWER.lock().expect("nobody panicked") = (answer, Bytes::copy_from_slice(body));
    let (runtime, address) = &*RUNTIME;
    runtime.block_on(async {
        let server = vec![address.to_string()];
        let client = Client::new(Config {
            masters: server.clone(),
            job_masters: server,
            user: "fuzz".to_owned(),
            connect_timeout: DEADLINE,
            call_timeout: DEADLINE,
            listing_idle_timeout: DEADLINE,
        });
        ask(&client, *call, *address).await;
        client.settled().await;
    });
});

/// Any outcome will do, as long as there is one.
async fn ask(client: &Client, call: u8, server: SocketAddr) {
    // Never one from an answer: only this server is spoken to.
    let worker = WorkerAddress {
        host: server.ip().to_string(),
        rpc_port: server.port(),
        container_host: String::new(),
    };
    let block = UfsBlock { id: 1, length: 10, ufs_path: "/u/f".into(), offset: 0, mount_id: 1 };
    match call % 13 {
        0 => count(client, LoadMetadata::Never).await,
        1 => count(client, LoadMetadata::Always).await,
        2 => {
            if let Ok(file) = client.status("/f").await {
                Survey::new(2, HashSet::from([1, 2])).add(&file);
            }
        }
        3 => drop(client.workers().await),
        4 => drop(client.master_info().await),
        5 => drop(client.jobs(&[]).await),
        6 => drop(client.job_ids(&[]).await),
        7 => drop(client.command_jobs(1).await),
        8 => drop(client.job_workers().await),
        9 => drop(client.cache_block(&worker, &block, ("127.0.0.1", 1), DEADLINE).await),
        10 => drop(client.load_blocks(&worker, &[block], DEADLINE).await),
        11 => drop(client.has_last_byte(&worker, (1, 10), DEADLINE).await),
        _ => drop(client.remove_block(&worker, 1, DEADLINE).await),
    }
}

async fn count(client: &Client, metadata: LoadMetadata) {
    let Ok(mut listing) = client.list("/", metadata).await else { return };
    let mut survey = Survey::new(2, HashSet::from([1, 2]));
    while let Ok(Some(file)) = listing.next().await {
        judge(&mut survey, &file);
    }
    assert!(survey.files_cached <= survey.files_total);
    assert!(survey.bytes_cached <= survey.bytes_total);
    assert_eq!(survey.is_complete(), survey.files_missing() == 0);
    let _ = survey.count(true);
}

/// A file whose blocks do not cover it, or lie on other workers, is never whole.
fn judge(survey: &mut Survey, file: &File) {
    let tally = survey.add(file);
    let known: u128 = file.blocks.iter().map(|block| u128::from(block.length)).sum();
    let short = |block: &alluxio_client::Block| {
        block.length > 0 && block.workers.iter().filter(|id| matches!(id, 1 | 2)).count() < 2
    };
    let lacks = known < u128::from(file.length) || file.blocks.iter().any(short);
    if !file.folder && (lacks || !file.completed) {
        let tally = tally.expect("what lacks blocks is not loaded");
        drop(tally.failure(file, 2, None));
    }
}

fn answer(request: Request<Body>) -> Response<Body> {
    let (answer, body) = ANSWER.lock().expect("nobody panicked").clone();
    let path = request.uri().path();
    let handshake = match path.rsplit('/').next() {
        Some("authenticate") => Some(SASL_SUCCESS),
        Some("getServiceVersion") => Some(EMPTY),
        _ => None,
    };
    let (answer, body) = match handshake {
        Some(known) if !answer.handshake_too => {
            (Answer { status: Some(0), ..answer }, Bytes::from_static(known))
        }
        _ => (answer, body),
    };
    let mut frames = vec![Ok::<_, Infallible>(Frame::data(body))];
    if let Some(status) = answer.status {
        let trailers = HeaderMap::from_iter([(
            axum::http::HeaderName::from_static("grpc-status"),
            HeaderValue::from(u16::from(status)),
        )]);
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body).expect("a response")
}
