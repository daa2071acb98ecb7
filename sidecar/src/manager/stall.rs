//! Notices a command that gets nowhere.
//!
//! distributedLoad may wait for ever: for a job whose worker died while it was being started, or for a job
//! master that has forgotten it (seen with 2.9.3). A command makes progress when bytes come in or when its
//! jobs do; the job service is asked only when no bytes have come in for a while.

use std::{sync::atomic::Ordering, time::Duration};

use alluxio_client::Client;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::live::Live;
use crate::engine::distributed_load::Told;

/// Between two looks at the progress that is published already.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns when neither bytes nor jobs have moved for `patience`; at the latest twice as long after the last
/// that moved.
pub(super) async fn until(client: &Client, live: &Live, told: watch::Receiver<Told>, patience: Duration) {
    let cached = || live.seen.load(Ordering::Relaxed);
    let mut last = (cached(), None);
    let mut since = Instant::now();
    loop {
        sleep(LOOK_EVERY.min(patience)).await;
        let now = cached();
        if now != last.0 {
            last = (now, None);
            since = Instant::now();
        } else if since.elapsed() >= patience {
            let id = told.borrow().job_control_id;
            let jobs = jobs(client, id).await;
            if last.1.as_ref() == Some(&jobs) {
                return;
            }
            last.1 = Some(jobs);
            since = Instant::now();
        }
    }
}

/// What the job service says of the jobs of a command.
#[derive(Debug, PartialEq, Eq)]
enum Jobs {
    /// Children of the command that have ended.
    Ended(usize),
    /// The command still submits: the newest job, whoever's.
    Newest(Option<i64>),
    Silent,
}

async fn jobs(client: &Client, job_control_id: Option<i64>) -> Jobs {
    let asked = match job_control_id {
        Some(id) => client
            .command_jobs(id)
            .await
            .map(|jobs| Jobs::Ended(jobs.iter().filter(|job| job.status.is_finished()).count())),
        None => client.job_ids(&[]).await.map(|ids| Jobs::Newest(ids.into_iter().max())),
    };
    asked.unwrap_or(Jobs::Silent)
}
