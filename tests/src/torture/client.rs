//! A client that calls at random, and its watches. It uses the generated client alone: ours is on trial too.

use super::history::{Answer, Refusal, What};
use super::record::Record;
use crate::random::Random;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{
    CancelLoadRequest, GetLoadRequest, ListLoadsRequest, Load, StartLoadRequest, VerifyLoadRequest,
    WatchLoadRequest,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// Deadline of a call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest rest between two calls.
const REST: Duration = Duration::from_millis(200);
/// Before a watch that broke is opened again.
const AGAIN: Duration = Duration::from_millis(100);
/// Of the wishes, those from the first on that somebody may cancel: others are to become LOADED, whatever happens.
const CANCELLED: usize = 3;
/// Watches of a client at the same time.
const WATCHES: usize = 4;
/// Loads of a page, few so that there are several.
const PAGE: i32 = 3;
/// Pages of a listing at most.
const PAGES: usize = 100;

/// Someone who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    client: PreloadServiceClient<Channel>,
    record: Arc<Record>,
    streams: Arc<AtomicU64>,
}

impl Caller {
    /// On a connection of its own; `streams` numbers the watches of all.
    pub fn new(address: &str, record: Arc<Record>, streams: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(DEADLINE);
        Ok(Self { client: PreloadServiceClient::new(endpoint.connect_lazy()), record, streams })
    }

    /// Calls until told to stop. Gives the watches that go on: they end with their loads, or when the run is `over`.
    pub async fn call_at_random(
        self,
        mut random: Random,
        wishes: Arc<Vec<StartLoadRequest>>,
        mut stop: watch::Receiver<bool>,
        over: watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        while !*stop.borrow() {
            let number = random.below(wishes.len());
            let wish = &wishes[number];
            let id = wish.load_id.clone();
            match random.below(14) {
                0..=3 => drop(self.start(wish.clone()).await),
                4..=7 => drop(self.get(&id).await),
                8 if number < CANCELLED && random.below(3) == 0 => drop(self.cancel(&id).await),
                9 => drop(self.verify(&id).await),
                10 => drop(self.list().await),
                11..=13 if watches.len() < WATCHES => {
                    let follow = random.below(3) == 0;
                    watches.spawn(self.clone().watch(id, follow, over.clone()));
                }
                _ => {}
            }
            while watches.try_join_next().is_some() {}
            let rest = random.up_to(REST);
            // Either way we look again.
            let _ = tokio::time::timeout(rest, stop.wait_for(|stop| *stop)).await;
        }
        watches
    }

    pub async fn start(&self, request: StartLoadRequest) -> Answer<Box<Load>> {
        let mut client = self.client.clone();
        let (begun, asked) = (self.record.now(), request.clone());
        let answer = answer(client.start_load(request)).await.map(Box::new);
        self.record.add(begun, What::Start { request: asked, answer: answer.clone() });
        answer
    }

    pub async fn get(&self, id: &str) -> Answer<Box<Load>> {
        let mut client = self.client.clone();
        let (begun, id) = (self.record.now(), id.to_owned());
        let answer = answer(client.get_load(GetLoadRequest { load_id: id.clone() })).await.map(Box::new);
        self.record.add(begun, What::Get { id, answer: answer.clone() });
        answer
    }

    pub async fn cancel(&self, id: &str) -> Answer<Box<Load>> {
        let mut client = self.client.clone();
        let (begun, id) = (self.record.now(), id.to_owned());
        let answer =
            answer(client.cancel_load(CancelLoadRequest { load_id: id.clone() })).await.map(Box::new);
        self.record.add(begun, What::Cancel { id, answer: answer.clone() });
        answer
    }

    pub async fn verify(&self, id: &str) -> Answer<Box<Load>> {
        let mut client = self.client.clone();
        let (begun, id) = (self.record.now(), id.to_owned());
        let answer =
            answer(client.verify_load(VerifyLoadRequest { load_id: id.clone() })).await.map(Box::new);
        self.record.add(begun, What::Verify { id, answer: answer.clone() });
        answer
    }

    /// All pages. Loads may change between two of them, but none may be left out.
    pub async fn list(&self) -> Answer<Vec<Load>> {
        let begun = self.record.now();
        let answer = self.pages().await;
        self.record.add(begun, What::List { answer: answer.clone() });
        answer
    }

    async fn pages(&self) -> Answer<Vec<Load>> {
        let mut client = self.client.clone();
        let (mut loads, mut page_token) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let request = ListLoadsRequest { page_size: PAGE, page_token, filter: None };
            let page = answer(client.list_loads(request)).await?;
            loads.extend(page.loads);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(loads);
            }
        }
        Err(Refusal { code: Code::Internal, message: format!("a listing of more than {PAGES} pages") })
    }

    /// Until it ends by itself, opened again whenever it breaks. One that follows a LOADED load ends with the run.
    async fn watch(self, id: String, follow: bool, mut over: watch::Receiver<bool>) {
        loop {
            let begun = self.record.now();
            let stream = self.streams.fetch_add(1, Ordering::Relaxed);
            let told = self.stream(stream, &id, follow);
            let answer = if follow {
                tokio::pin!(told);
                let answer = tokio::select! {
                    answer = &mut told => Some(answer),
                    _ = over.wait_for(|over| *over) => None,
                };
                match answer {
                    Some(answer) => answer,
                    // LOADED may still be withdrawn; after anything else there is nothing to follow.
                    None if self.record.last_state(&id) == Some(State::Loaded) => return,
                    None => told.await,
                }
            } else {
                told.await
            };
            let again = match &answer {
                Ok(()) => false,
                Err(refusal) => refusal.code != Code::NotFound,
            };
            self.record.add(begun, What::StreamEnded { stream, id: id.clone(), follow, answer });
            if !again {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn stream(&self, stream: u64, id: &str, follow: bool) -> Answer<()> {
        let mut client = self.client.clone();
        let begun = self.record.now();
        let request = WatchLoadRequest { load_id: id.to_owned(), follow, after_sequence: 0 };
        let mut messages = answer(client.watch_load(request)).await?;
        while let Some(load) = messages.message().await.map_err(refusal)? {
            self.record.add(begun, What::Told { stream, load: Box::new(load) });
        }
        Ok(())
    }
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Answer<T> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(refusal),
        Err(_) => {
            Err(Refusal { code: Code::DeadlineExceeded, message: format!("no answer in {DEADLINE:?}") })
        }
    }
}

fn refusal(status: Status) -> Refusal {
    Refusal { code: status.code(), message: status.message().to_owned() }
}
