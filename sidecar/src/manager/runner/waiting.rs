//! WAITING: polls the gates until all are open, or for as long as the load may wait.

use std::{sync::atomic::Ordering, time::Duration};

use alluxio_client::{Client, Error, Worker};
use tokio::time::Instant;

use super::{FIRST_LOOK, LAST_LOOK, Runner, Stop, job_service_silent, unreachable};
use crate::{
    gates::{self, Need, Shut},
    job::{EngineKind, Event, Reason, State},
};

/// A job worker reports its health every second; one silent for longer than this is asked for a second time.
const FRESH_HEALTH_MS: u64 = 3_000;

/// What is missing was counted before the wait: after so long it is counted again, since others may have cached
/// or removed some of it.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(120);

/// Two reports at least fall into this.
const HEALTH_WATCH: Duration = Duration::from_millis(2500);

impl Runner {
    /// Polls until every gate is open; returns the identity of the cluster. `shut`: what is known to be shut.
    pub(super) async fn wait_for_gates(
        &self,
        need: Option<Need>,
        engine: Option<EngineKind>,
        shut: Option<Shut>,
    ) -> Result<String, Stop> {
        let mut known = shut;
        let mut pause = FIRST_LOOK;
        let begun = Instant::now();
        loop {
            let need = need.filter(|_| begun.elapsed() < LIST_AGAIN_AFTER);
            let shut = match known.take() {
                Some(shut) => shut,
                None => match self.unless_stopped(self.gates(need, engine)).await? {
                    Ok(cluster) => return Ok(cluster),
                    Err(shut) => shut,
                },
            };
            let job = self.job();
            if job.state != State::Waiting || job.reason != Some(shut.reason) || job.message != shut.message {
                self.apply(Event::GateShut { reason: shut.reason, message: shut.message.clone() }).await?;
            }
            let left = self.job().wait_left(self.manager.now());
            if left.is_zero() {
                let waited = self.job().spec.wait_timeout.as_secs_f64();
                return Err(Stop::Failed {
                    reason: Reason::GateTimedOut,
                    message: format!("waited {waited} s: {}", shut.message),
                });
            }
            self.unless_stopped(tokio::time::sleep(pause.min(left))).await?;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Looks at every gate once; open: the identity of the cluster. Room that was set aside for this load
    /// stays so until a gate is shut.
    pub(super) async fn gates(&self, need: Option<Need>, engine: Option<EngineKind>) -> Result<String, Shut> {
        let looked = self.look(need, engine).await;
        if looked.is_err() || need.is_none() {
            self.live.has_room.store(false, Ordering::Relaxed);
        }
        looked
    }

    async fn look(&self, need: Option<Need>, engine: Option<EngineKind>) -> Result<String, Shut> {
        let client = self.client().await?;
        let spec = &self.job().spec;
        let master = client.master_info().await.map_err(|error| unreachable(&error))?;
        if master.safe_mode {
            let message = "the alluxio master is in safe mode, waiting for its workers".to_owned();
            return Err(Shut { reason: Reason::AlluxioUnreachable, message });
        }
        let workers = client.workers().await.map_err(|error| unreachable(&error))?;
        let mut shut = gates::workers(spec, &workers);
        if let (None, Some(need)) = (&shut, need) {
            if engine == Some(EngineKind::DistributedLoad) {
                let job_workers = live_job_workers(client, self.manager.now().as_millisecond()).await;
                shut = gates::job_workers(job_workers.map_err(|error| job_service_silent(&error))?);
            }
            if shut.is_none() {
                // Once more: a look at the job workers may have taken seconds, in which others loaded.
                let workers = client.workers().await.map_err(|error| unreachable(&error))?;
                shut = self.take_room(need, &workers);
            }
        }
        match shut {
            Some(shut) => Err(shut),
            None if master.cluster_id.is_empty() => {
                let message = "the alluxio master does not tell its cluster id yet".to_owned();
                Err(Shut { reason: Reason::AlluxioUnreachable, message })
            }
            None => Ok(master.cluster_id),
        }
    }

    /// Judges the room and sets it aside in one step, so that of two loads that look at once one gets it.
    fn take_room(&self, need: Need, workers: &[Worker]) -> Option<Shut> {
        self.manager.0.live.with(|all| {
            let others = all.all().filter(|other| other.id != self.live.id);
            let promised = others
                .filter(|other| other.has_room.load(Ordering::Relaxed))
                .map(|other| other.missing.load(Ordering::Relaxed));
            let shut = gates::room(&self.job().spec, need, workers, promised.fold(0, u64::saturating_add));
            self.live.has_room.store(shut.is_none(), Ordering::Relaxed);
            shut
        })
    }
}

/// Job workers stay listed for 60 s after their death. Their reports carry their own clocks, so one that
/// looks old is believed dead only when it does not move.
pub(super) async fn live_job_workers(client: &Client, now_ms: i64) -> Result<usize, Error> {
    let first = client.job_workers().await?;
    let fresh = |ms: i64| is_fresh(ms, now_ms);
    if first.is_empty() || first.iter().any(|w| fresh(w.last_updated_ms)) {
        return Ok(first.iter().filter(|w| fresh(w.last_updated_ms)).count());
    }
    tokio::time::sleep(HEALTH_WATCH).await;
    let second = client.job_workers().await?;
    let moved = |id: i64, ms: i64| first.iter().any(|w| w.id == id && w.last_updated_ms != ms);
    Ok(second.iter().filter(|w| moved(w.id, w.last_updated_ms)).count())
}

/// `reported_ms` is another machine's word, and may be anything.
fn is_fresh(reported_ms: i64, now_ms: i64) -> bool {
    now_ms.abs_diff(reported_ms) <= FRESH_HEALTH_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_of_these_seconds_is_fresh() {
        let now = 1_700_000_000_000;
        assert!(is_fresh(now - 3_000, now) && is_fresh(now + 3_000, now));
        for ms in [now - 3_001, now + 3_001, 0, i64::MIN, i64::MIN + now, i64::MAX] {
            assert!(!is_fresh(ms, now), "{ms}");
        }
    }
}
