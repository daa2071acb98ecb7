//! What WatchLoad says of a load, across restarts of its sidecar, for all who wait for it.

use alluxio_preload_api::client::{Update, Watch, is_terminal};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The last message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) load: Option<Load>,
    /// When a terminal state was heard of.
    pub(crate) ended: Option<Instant>,
}

impl Seen {
    pub(crate) fn state(&self) -> State {
        self.load.as_ref().map_or(State::Unspecified, Load::state)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Its metadata are known.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_over() || matches!(self.state(), State::Loading | State::Verifying)
    }
}

/// Until the load has ended.
pub(crate) async fn follow(mut watch: Watch, seen: watch::Sender<Seen>, limit: Duration) -> Result<()> {
    let followed = async {
        while let Some(update) = watch.next().await {
            match update.context("WatchLoad")? {
                Update::Load(load) => {
                    let ended = is_terminal(load.state(), false).then(Instant::now);
                    seen.send_replace(Seen { load: Some(*load), ended });
                    if ended.is_some() {
                        return Ok(());
                    }
                }
                // The sidecar was killed.
                Update::Lost { .. } => {}
            }
        }
        bail!("the watch ended before the load")
    };
    let followed = tokio::time::timeout(limit, followed).await;
    followed.unwrap_or_else(|_| bail!("it has not ended after {limit:?}"))
}

/// Waits for a condition, or for the end.
pub(crate) async fn until(seen: &mut watch::Receiver<Seen>, condition: impl Fn(&Seen) -> bool) {
    // An error: there will be no news.
    let _ = seen.wait_for(|seen| seen.is_over() || condition(seen)).await;
}
