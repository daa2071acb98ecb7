//! The watchers: a thread of their own with a runtime of its own, so that the one who measures never waits
//! behind them in this process.

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{Load, WatchLoadRequest};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream;
use preload_tests::stats::Spread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Connections and first messages that are waited for at once.
const AT_ONCE: usize = 64;
/// For all of them to get their first message.
const LIMIT: Duration = Duration::from_secs(120);

/// What all watchers saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Watchers whose last message said LOADED.
    pub(super) loaded: usize,
    /// Median of the messages that each got.
    pub(super) messages: f64,
    /// Between the first and the last to get the last message.
    pub(super) spread: Duration,
    /// Of one whose stream broke.
    pub(super) complaint: Option<String>,
}

#[derive(Debug)]
pub(super) struct Crowd {
    thread: JoinHandle<Result<Seen>>,
    gathered: watch::Receiver<bool>,
}

impl Crowd {
    /// Opens `count` streams of load `id` over `connections`.
    pub(super) fn gather(address: &str, id: &str, count: usize, connections: usize) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).context("make an endpoint")?;
        let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
        let (all_there, gathered) = watch::channel(false);
        let thread = std::thread::Builder::new().name("watchers".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attend(&endpoint, &request, count, connections, all_there))
        })?;
        Ok(Self { thread, gathered })
    }

    /// Waits until every stream has given its first message.
    pub(super) async fn gathered(&self) -> Result<()> {
        let mut gathered = self.gathered.clone();
        let all = tokio::time::timeout(LIMIT, gathered.wait_for(|all| *all)).await;
        match all.context("the watchers did not get their first message in time")? {
            Ok(_) => Ok(()),
            Err(_) => bail!("a watcher could not begin"),
        }
    }

    /// Every stream has ended.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn seen(self) -> Result<Seen> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of the watchers panicked"))?
    }
}

async fn attend(
    endpoint: &Endpoint,
    request: &WatchLoadRequest,
    count: usize,
    connections: usize,
    all_there: watch::Sender<bool>,
) -> Result<Seen> {
    let channels: Vec<Result<Channel, _>> =
        stream::iter(0..connections).map(|_| endpoint.connect()).buffer_unordered(AT_ONCE).collect().await;
    let channels: Vec<Channel> = channels.into_iter().collect::<Result<_, _>>().context("connect")?;
    let mut begun = stream::iter(0..count)
        .map(|number| {
            let mut client = PreloadServiceClient::new(channels[number % connections].clone());
            async move {
                let mut stream = client.watch_load(request.clone()).await?.into_inner();
                stream.message().await?;
                Ok::<_, tonic::Status>(stream)
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut watchers = JoinSet::new();
    while let Some(stream) = begun.next().await {
        watchers.spawn(follow(stream.context("begin to watch")?));
    }
    all_there.send_replace(true);

    let mut seen = Seen::default();
    let (mut messages, mut ends) = (Vec::new(), Vec::new());
    while let Some(ended) = watchers.join_next().await {
        let (last, count, result) = ended?;
        messages.push(count);
        match result {
            Ok((State::Loaded, at)) => {
                seen.loaded += 1;
                ends.push(at);
            }
            Ok((state, _)) => seen.complaint = Some(format!("{state:?}: {last}")),
            Err(status) => seen.complaint = Some(status.to_string()),
        }
    }
    seen.messages = Spread::of(messages).median;
    if let (Some(first), Some(last)) = (ends.iter().min(), ends.iter().max()) {
        seen.spread = *last - *first;
    }
    Ok(seen)
}

/// Reads a stream to its end: the last message's words, how many there were, its state and when it came.
async fn follow(mut stream: Streaming<Load>) -> (String, f64, Result<(State, Instant), tonic::Status>) {
    let (mut last, mut at, mut count) = (Load::default(), Instant::now(), 1.0);
    loop {
        match stream.message().await {
            Ok(Some(load)) => {
                (last, at) = (load, Instant::now());
                count += 1.0;
            }
            Ok(None) => return (last.message.clone(), count, Ok((last.state(), at))),
            Err(status) => return (last.message, count, Err(status)),
        }
    }
}
