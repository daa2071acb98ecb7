//! What a command left in Alluxio's job service: cancelled before a load goes on, or ends.

use std::time::Duration;

use tokio::time::timeout;

use super::{FIRST_LOOK, Runner, Stop, chain};
use crate::{engine::leftovers, job::Event};

/// How long the job service may be silent before a cancelled load ends without its word. Jobs do not
/// survive their job master, so none is left then.
pub(super) const SILENT_JOB_SERVICE: Duration = Duration::from_secs(60);
/// A stop of the sidecar does not wait longer for it; the next start cancels what is left.
pub(super) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

impl Runner {
    /// Cancels what our command left in the job service. Gives up after `patience` without an answer.
    pub(super) async fn clear_remnant(&self, patience: Duration) -> Result<(), Stop> {
        let job = self.job();
        let Some(remnant) = job.remnant else { return Ok(()) };
        // A job service that keeps making jobs is not silent; hence no bound on one long cancel but this.
        let longest = if patience == SHUTDOWN_PATIENCE { patience } else { patience * 10 };
        let addressed = async {
            loop {
                match self.client().await {
                    Ok(client) => break client,
                    Err(shut) => tracing::debug!(why = shut.message, "alluxio cannot be addressed"),
                }
                tokio::time::sleep(FIRST_LOOK).await;
            }
        };
        let Ok(client) = timeout(patience, addressed).await else {
            return self.leave_remnant(patience, "alluxio cannot be addressed").await;
        };
        match timeout(longest, leftovers::cancel(client, &self.live.path, remnant, patience)).await {
            Ok(Ok(jobs)) => {
                if jobs > 0 {
                    self.manager.0.metrics.leftovers(jobs);
                    tracing::info!(jobs, "cancelled the jobs that distributedLoad left behind");
                }
                self.apply(Event::RemnantCleared).await
            }
            Ok(Err(error)) => self.leave_remnant(patience, &chain(&error)).await,
            Err(_) => self.leave_remnant(patience, "jobs kept coming").await,
        }
    }

    async fn leave_remnant(&self, patience: Duration, why: &str) -> Result<(), Stop> {
        tracing::warn!(why, ?patience, "jobs of this load may go on in the job service");
        if patience == SHUTDOWN_PATIENCE { Ok(()) } else { self.apply(Event::RemnantCleared).await }
    }
}
