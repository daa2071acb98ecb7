//! The stream of WatchLoad.

use std::time::Duration;

use alluxio_preload_api::v1;
use futures_util::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{convert, status};
use crate::{manager::Watch, metrics::Watcher};

/// A quiet load says this often that all is well; below the idle time-outs of common proxies (60 s).
const HEARTBEAT: Duration = Duration::from_secs(15);

enum Step {
    /// Send the present state, then wait for the next.
    Send(Box<Watch>),
    Wait(Box<Watch>),
    End,
}

/// The present state at once, then changes and heartbeats, until the last state or until `stopping`.
pub(super) fn stream(
    watch: Watch,
    stopping: CancellationToken,
    counted: Watcher,
) -> impl Stream<Item = Result<v1::Load, Status>> + Send {
    stream::unfold(Step::Send(Box::new(watch)), move |step| {
        let _ = &counted;
        let stopping = stopping.clone();
        async move {
            let mut watch = match step {
                Step::End => return None,
                Step::Send(watch) => watch,
                Step::Wait(mut watch) => {
                    tokio::select! {
                        biased;
                        () = stopping.cancelled() => return Some((Err(status::stopping()), Step::End)),
                        changed = tokio::time::timeout(HEARTBEAT, watch.changed()) => match changed {
                            Ok(Ok(())) | Err(_) => watch,
                            Ok(Err(error)) => return Some((Err(status::of_manager(&error)), Step::End)),
                        },
                    }
                }
            };
            let job = watch.present();
            let next = if watch.is_last(&job) { Step::End } else { Step::Wait(watch) };
            Some((Ok(convert::load(&job)), next))
        }
    })
}
