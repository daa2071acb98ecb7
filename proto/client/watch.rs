//! A watch that outlives the connection.
//!
//! Invariants: all loads of one watch have the same uid and a sequence that never goes back; after a
//! terminal state or an error nothing follows; a row of failed tries has an end.

use super::{Backoff, Client, Explanation, is_unreachable};
use crate::v1::{Load, WatchLoadRequest, load::State};
use std::{fmt, future::Future, pin::Pin, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Status, Streaming};

/// The sidecar repeats its last message this often when nothing changes (contract of WatchLoad).
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Stay beyond LOADED until the load is withdrawn or deleted.
    pub follow: bool,
    pub backoff: Backoff,
    /// A stream that says nothing for so long is opened again. Default: three heartbeats.
    pub silence: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { follow: false, backoff: Backoff::default(), silence: 3 * HEARTBEAT }
    }
}

/// What a watch has to tell.
#[derive(Debug)]
pub enum Update {
    /// The load as it is now; heartbeats repeat it.
    Load(Box<Load>),
    /// The stream broke and will be opened again after `retry_in`.
    Lost { error: Status, retry_in: Duration },
}

/// A load being watched. Ends after the terminal state, or with the error that trying again cannot mend.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    load_id: String,
    options: WatchOptions,
    phase: Phase,
    last: Option<Seen>,
    /// Tries in a row that brought no news.
    failures: u32,
}

enum Phase {
    Waiting {
        until: Instant,
    },
    /// The call lives here and not in the future of `next`: who drops that one in a `select!` every 100 ms
    /// would otherwise begin anew each time and never get through.
    Opening {
        call: Pin<Box<dyn Future<Output = Result<Streaming<Load>, Status>> + Send>>,
        since: Instant,
    },
    Open {
        stream: Box<Streaming<Load>>,
        since: Instant,
        heard: Instant,
    },
    Ended,
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Opening { .. } => "Opening",
            Self::Open { .. } => "Open",
            Self::Ended => "Ended",
        })
    }
}

#[derive(Debug)]
struct Seen {
    uid: String,
    sequence: u64,
}

impl Watch {
    pub(super) fn new(client: Client, load_id: String, options: WatchOptions) -> Self {
        let phase = Phase::Waiting { until: Instant::now() };
        Self { client, load_id, options, phase, last: None, failures: 0 }
    }

    /// The next update; `None` after the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Update, Status>> {
        loop {
            match &mut self.phase {
                Phase::Ended => return None,
                Phase::Waiting { until } => {
                    sleep_until(*until).await;
                    self.phase = Phase::Opening { call: self.open(), since: Instant::now() };
                }
                Phase::Opening { call, since } => {
                    let since = *since;
                    match timeout_at(since + self.options.silence, call).await {
                        Ok(Ok(stream)) => {
                            let stream = Box::new(stream);
                            self.phase = Phase::Open { stream, since, heard: Instant::now() };
                        }
                        Ok(Err(error)) => return Some(self.broken(error)),
                        Err(_) => return Some(self.broken(self.silent())),
                    }
                }
                Phase::Open { stream, since, heard } => {
                    let since = *since;
                    match timeout_at(*heard + self.options.silence, stream.message()).await {
                        Ok(Ok(Some(load))) => {
                            if let Some(update) = self.accept(load, since) {
                                return Some(update);
                            }
                        }
                        Ok(Ok(None)) => {
                            let error = Status::unavailable("the stream ended before the load did");
                            return Some(self.broken(error));
                        }
                        Ok(Err(error)) => return Some(self.broken(error)),
                        Err(_) => return Some(self.broken(self.silent())),
                    }
                }
            }
        }
    }

    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Streaming<Load>, Status>> + Send>> {
        let request = WatchLoadRequest {
            load_id: self.load_id.clone(),
            after_sequence: self.last.as_ref().map_or(0, |seen| seen.sequence),
            follow: self.options.follow,
        };
        let client = self.client.clone();
        Box::pin(async move { client.open_watch(request).await })
    }

    /// Passes a load on, unless it is older than what was seen: that counts as silence.
    fn accept(&mut self, load: Load, opened: Instant) -> Option<Result<Update, Status>> {
        let news = match &self.last {
            Some(seen) if seen.uid != load.uid => {
                self.phase = Phase::Ended;
                let id = &self.load_id;
                let message = format!("load {id} was deleted, and another load has its id now");
                return Some(Err(Status::not_found(message)));
            }
            Some(seen) if seen.sequence > load.sequence => return None,
            Some(seen) => seen.sequence < load.sequence,
            None => true,
        };
        let now = Instant::now();
        // A sidecar that answers and dies at once, again and again, must not keep the watch alive.
        if news || now - opened >= HEARTBEAT {
            self.failures = 0;
        }
        if let Phase::Open { heard, .. } = &mut self.phase {
            *heard = now;
        }
        self.last = Some(Seen { uid: load.uid.clone(), sequence: load.sequence });
        if is_terminal(load.state(), self.options.follow) {
            self.phase = Phase::Ended;
        }
        Some(Ok(Update::Load(Box::new(load))))
    }

    fn broken(&mut self, error: Status) -> Result<Update, Status> {
        let asked = Explanation::of(&error).retry_after;
        let retry = is_unreachable(&error) || asked.is_some();
        let delay = self.options.backoff.random_delay(self.failures).filter(|_| retry);
        let Some(delay) = delay else {
            self.phase = Phase::Ended;
            return Err(error);
        };
        // The sidecar may ask for more patience, within our bounds.
        let retry_in = delay.max(asked.unwrap_or_default().min(self.options.backoff.max));
        self.failures += 1;
        self.phase = Phase::Waiting { until: Instant::now() + retry_in };
        Ok(Update::Lost { error, retry_in })
    }

    fn silent(&self) -> Status {
        Status::unavailable(format!("nothing heard for {:?}", self.options.silence))
    }
}

/// Whether a watch ends with this state.
pub fn is_terminal(state: State, follow: bool) -> bool {
    match state {
        State::Failed | State::Cancelled | State::Stale => true,
        State::Loaded => !follow,
        State::Unspecified
        | State::Queued
        | State::Waiting
        | State::Listing
        | State::Loading
        | State::Verifying => false,
    }
}
