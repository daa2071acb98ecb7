//! The watch of the client: resumes, never goes back, and comes to an end.

use crate::{
    fixture::{life, progressed, queued, then},
    server::{Script, Server, Step, sends},
};
use alluxio_preload_api::{
    client::{Backoff, Client, ClientConfig, Update, Watch, WatchOptions},
    v1::{Load, WatchLoadRequest, load::State},
};
use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

const TRIES: u32 = 4;

/// Quick tries; silence is not noticed unless the test says so.
fn options() -> WatchOptions {
    let backoff =
        Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(20), attempts: TRIES };
    WatchOptions { backoff, silence: Duration::from_secs(100), ..WatchOptions::default() }
}

fn client(address: &str) -> Client {
    Client::new(ClientConfig::new(address.parse().unwrap())).unwrap()
}

/// What a watch told until its end.
#[derive(Debug, Default)]
struct Told {
    loads: Vec<Load>,
    lost: Vec<Code>,
    error: Option<Status>,
}

impl Told {
    fn sequences(&self) -> Vec<u64> {
        self.loads.iter().map(|l| l.sequence).collect()
    }
}

async fn all(mut watch: Watch) -> Told {
    let mut told = Told::default();
    while let Some(update) = watch.next().await {
        match update {
            Ok(Update::Load(load)) => told.loads.push(*load),
            Ok(Update::Lost { error, .. }) => told.lost.push(error.code()),
            Err(error) => told.error = Some(error),
        }
    }
    assert!(watch.next().await.is_none(), "the end stays the end");
    told
}

fn watching(
    answer: impl Fn(usize, Request<WatchLoadRequest>) -> Result<Vec<Step>, Status> + Send + Sync + 'static,
) -> Script {
    Script { watch: Box::new(answer), ..Script::default() }
}

#[tokio::test]
async fn a_watch_goes_on_after_every_kind_of_break() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    let server = Server::tcp(watching(move |call, request| {
        requests.lock().unwrap().push((request.get_ref().after_sequence, request.get_ref().follow));
        let life = life();
        Ok(match call {
            0 => [sends(&life[..2]), vec![Step::Fail(Status::unavailable("stopping"))]].concat(),
            1 => return Err(Status::unavailable("not yet")),
            // An end without a terminal state.
            2 => sends(&life[2..4]),
            3 => [sends(&life[4..5]), vec![Step::Die]].concat(),
            _ => sends(&life[5..]),
        })
    }));
    let told = all(client(&server.address).watch_load("a", options())).await;
    assert!(told.error.is_none(), "{told:?}");
    assert_eq!(told.loads.last().unwrap().state(), State::Loaded);
    assert!(told.sequences().is_sorted(), "{:?}", told.sequences());
    // One for each break; a call that comes while the server dies breaks too.
    assert!(told.lost.len() >= 4, "{:?}", told.lost);
    assert_eq!(told.lost[..3], [Code::Unavailable; 3]);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[..3], [(0, false), (2, false), (2, false)]);
    assert!(seen.is_sorted(), "{seen:?}");
}

#[tokio::test]
async fn a_dead_address_is_given_up() {
    let listener = TcpListener::bind("127.0.61.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let told = all(client(&address).watch_load("a", options())).await;
    assert_eq!(told.lost, [Code::Unavailable; TRIES as usize]);
    assert_eq!(told.error.unwrap().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_sidecar_that_dies_after_each_answer_is_given_up() {
    let server = Server::tcp(watching(|_, _| Ok([sends(&[queued()]), vec![Step::Die]].concat())));
    let told = all(client(&server.address).watch_load("a", options())).await;
    // The first answer was news, and forgave what came before it.
    assert_eq!(told.lost.len(), TRIES as usize);
    assert!(told.error.is_some());
}

#[tokio::test]
async fn news_forgives_earlier_breaks() {
    let server = Server::tcp(watching(|call, _| {
        let breaks = 3 * TRIES as usize;
        let mut load = queued();
        load.sequence += call as u64;
        Ok(if call < breaks { sends(&[load]) } else { sends(&[then(&load, State::Loaded)]) })
    }));
    let told = all(client(&server.address).watch_load("a", options())).await;
    assert!(told.error.is_none(), "{told:?}");
    assert_eq!(told.lost.len(), 3 * TRIES as usize);
}

#[tokio::test]
async fn silence_is_a_break() {
    let server = Server::tcp(watching(|call, _| {
        Ok(if call == 0 { vec![Step::Hang] } else { sends(&[then(&queued(), State::Failed)]) })
    }));
    // A slow machine may find several streams silent before one is quick enough.
    let backoff = Backoff { attempts: 1_000, ..options().backoff };
    let options = WatchOptions { silence: Duration::from_millis(50), backoff, ..options() };
    let told = all(client(&server.address).watch_load("a", options)).await;
    assert!(!told.lost.is_empty(), "{told:?}");
    assert_eq!(told.loads.last().unwrap().state(), State::Failed);
}

#[tokio::test]
async fn older_messages_are_dropped() {
    let life = life();
    let script = [life[4].clone(), life[1].clone(), life[4].clone(), life[3].clone(), life[8].clone()];
    let server = Server::tcp(watching(move |_, _| Ok(sends(&script))));
    let told = all(client(&server.address).watch_load("a", options())).await;
    assert_eq!(told.sequences(), [life[4].sequence, life[4].sequence, life[8].sequence]);
}

#[tokio::test]
async fn another_load_under_the_same_id_is_not_taken_for_this_one() {
    let server = Server::tcp(watching(|_, _| {
        let mut other = progressed(&queued(), None);
        other.uid = "uid-b".into();
        Ok(sends(&[queued(), other]))
    }));
    let told = all(client(&server.address).watch_load("a", options())).await;
    assert_eq!(told.loads.len(), 1);
    assert_eq!(told.error.unwrap().code(), Code::NotFound);
}

#[tokio::test]
async fn a_refusal_ends_the_watch_at_once() {
    for code in [Code::NotFound, Code::PermissionDenied, Code::Unauthenticated, Code::Internal] {
        let server = Server::tcp(watching(move |_, _| Err(Status::new(code, "no"))));
        let told = all(client(&server.address).watch_load("a", options())).await;
        assert_eq!((told.lost.len(), told.error.unwrap().code()), (0, code));
    }
}

#[tokio::test]
async fn a_refusal_that_says_when_to_come_back_is_obeyed_within_bounds() {
    let server = Server::tcp(watching(|call, _| {
        let busy = |delay| {
            let details = ErrorDetails::with_retry_info(Some(delay));
            Status::with_error_details(Code::ResourceExhausted, "too many watchers", details)
        };
        match call {
            0 => Err(busy(Duration::from_millis(10))),
            1 => Err(busy(Duration::from_secs(3600))),
            _ => Ok(sends(&[then(&queued(), State::Loaded)])),
        }
    }));
    let mut watch = client(&server.address).watch_load("a", options());
    let mut waits = Vec::new();
    while let Some(update) = watch.next().await {
        if let Update::Lost { retry_in, .. } = update.unwrap() {
            waits.push(retry_in);
        }
    }
    assert_eq!(waits, [Duration::from_millis(10), Duration::from_millis(20)]);
}

#[tokio::test]
async fn follow_goes_beyond_loaded() {
    let server = Server::tcp(watching(|_, request| {
        assert!(request.get_ref().follow);
        let loaded = life().pop().unwrap();
        Ok(sends(&[loaded.clone(), then(&loaded, State::Stale)]))
    }));
    let options = WatchOptions { follow: true, ..options() };
    let told = all(client(&server.address).watch_load("a", options)).await;
    let states: Vec<_> = told.loads.iter().map(Load::state).collect();
    assert_eq!(states, [State::Loaded, State::Stale]);
}

#[tokio::test]
async fn dropping_the_future_of_next_loses_nothing() {
    let server = Server::tcp(watching(|call, _| {
        let life = life();
        Ok(if call == 0 { [sends(&life[..4]), vec![Step::Die]].concat() } else { sends(&life[4..]) })
    }));
    let mut watch = client(&server.address).watch_load("a", options());
    let mut sequences = Vec::new();
    loop {
        // Ready before the other branch in about every second turn: `next` is dropped half way.
        tokio::select! {
            update = watch.next() => match update {
                Some(Ok(Update::Load(load))) => sequences.push(load.sequence),
                Some(Ok(Update::Lost { .. })) => {}
                Some(Err(error)) => panic!("{error}"),
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(sequences.last(), Some(&life().last().unwrap().sequence));
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    let after_the_cut: Vec<_> = life()[4..].iter().map(|l| l.sequence).collect();
    assert!(sequences.ends_with(&after_the_cut), "{sequences:?}");
}
