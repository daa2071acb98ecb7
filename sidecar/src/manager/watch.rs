//! One watcher's view of a load.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Manager, ManagerError};
use crate::job::{Job, LoadId, State};

/// The present state at once, then newer ones. A slow watcher misses intermediate ones, never the last.
#[derive(Debug)]
pub struct Watch {
    manager: Manager,
    id: LoadId,
    follow: bool,
    source: watch::Receiver<Arc<Job>>,
}

impl Watch {
    pub(super) async fn open(manager: Manager, id: LoadId, follow: bool) -> Result<Self, ManagerError> {
        let source = subscribe(&manager, &id, follow).await?;
        Ok(Self { manager, id, follow, source })
    }

    /// What is known now; marks it as seen.
    pub fn present(&mut self) -> Arc<Job> {
        Arc::clone(&self.source.borrow_and_update())
    }

    /// Nothing follows `job`.
    #[must_use]
    pub fn is_last(&self, job: &Job) -> bool {
        let goes_on = job.state.is_live() || (self.follow && job.state == State::Loaded);
        !goes_on
    }

    /// Waits until [`present`](Self::present) is news. `NotFound`: the load was deleted while followed.
    /// Cancel safe.
    pub async fn changed(&mut self) -> Result<(), ManagerError> {
        if self.source.changed().await.is_ok() {
            return Ok(());
        }
        // Its sender is gone: a live load became a finished one, or a followed one was deleted.
        let seen = self.source.borrow().sequence;
        self.source = subscribe(&self.manager, &self.id, self.follow).await?;
        if self.source.borrow().sequence == seen && self.source.has_changed().is_ok() {
            self.source.borrow_and_update();
            return Box::pin(self.changed()).await;
        }
        Ok(())
    }
}

async fn subscribe(
    manager: &Manager,
    id: &LoadId,
    follow: bool,
) -> Result<watch::Receiver<Arc<Job>>, ManagerError> {
    if let Some(live) = manager.find(id) {
        return Ok(live.subscribe());
    }
    let job = manager.finished(id).await?;
    if !follow || job.state != State::Loaded {
        // Its one value is the last.
        return Ok(watch::channel(job).1);
    }
    let followed = &manager.0.followed;
    let source =
        followed.with(|all| all.entry(id.clone()).or_insert_with(|| watch::Sender::new(job)).subscribe());
    // A withdrawal or deletion between the reading and the entry would be missed.
    match manager.get(id).await {
        Ok(now) => {
            followed.with(|all| {
                if let Some(sender) = all.get(id) {
                    sender.send_if_modified(|job| {
                        let newer = now.sequence > job.sequence;
                        if newer {
                            *job = now;
                        }
                        newer
                    });
                }
            });
            Ok(source)
        }
        Err(error) => {
            followed.with(|all| all.remove(id));
            Err(error)
        }
    }
}
