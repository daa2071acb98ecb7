//! Cancels what a run of distributedLoad left in Alluxio's job service, and nothing else.
//!
//! Killing the command does not stop its jobs, and the command cannot be cancelled as a whole: only its
//! children can, while the service may still be starting more. So it goes in rounds, until nothing of ours
//! has been seen for a while.
//!
//! Ours are: the children of our command, once it told its id; before that, jobs named `Load` that are
//! younger than our command and whose paths all lie under ours. Loads on other paths, and jobs that
//! replicate, evict, migrate or persist data of users, never match.
//!
//! The job master submits one command at a time and keeps others waiting, also those whose caller is gone. A
//! command gets an id, which is listed nowhere, then its jobs get the ids that follow (seen with 2.9.3). So
//! jobs before the first id that is not listed belong to a command that began before ours, and while
//! somebody's jobs are being started, ours may still be about to come.

use std::{collections::HashSet, time::Duration};

use alluxio_client::{Client, Error, Job, JobStatus};
use tokio::time::Instant;

use crate::job::{AlluxioPath, Remnant};

/// Between two looks.
const ROUND: Duration = Duration::from_millis(300);

/// Nothing of ours seen for this long, and it is over. A command killed before it told its id may have a
/// submission under way in the job master that has started no child yet; a listing of the UFS is in it.
const QUIET_KNOWN: Duration = Duration::from_millis(300);
const QUIET_UNKNOWN: Duration = Duration::from_secs(3);

/// Tasks get to know that their job was cancelled by a heartbeat of their job worker, one a second.
const TASKS_STOP: Duration = Duration::from_secs(5);

/// Name of the jobs that distributedLoad starts.
const LOAD: &str = "Load";
const LIVE: [JobStatus; 2] = [JobStatus::Created, JobStatus::Running];

/// Cancels all that is ours and returns how many jobs that were. Returns only when nothing of ours runs
/// any more, or with the error of a job service that has been silent for `patience`; the caller bounds it.
pub async fn cancel(
    client: &Client,
    path: &AlluxioPath,
    remnant: Remnant,
    patience: Duration,
) -> Result<usize, Error> {
    let mut cancelled = HashSet::new();
    let mut answered = Instant::now();
    while let Err(error) = cancel_seen(client, path, remnant, &mut cancelled, &mut answered).await {
        if answered.elapsed() >= patience {
            return Err(error);
        }
        tracing::debug!(%error, "the job service is silent; trying again");
        tokio::time::sleep(ROUND).await;
    }
    Ok(cancelled.len())
}

/// In rounds, until it is quiet. `answered`: when the job service spoke last.
async fn cancel_seen(
    client: &Client,
    path: &AlluxioPath,
    remnant: Remnant,
    cancelled: &mut HashSet<i64>,
    answered: &mut Instant,
) -> Result<(), Error> {
    let quiet_for = if remnant.job_control_id.is_some() { QUIET_KNOWN } else { QUIET_UNKNOWN };
    let mut newest = 0;
    let mut quiet_since = Instant::now();
    loop {
        let seen = live(client, path, remnant).await?;
        *answered = Instant::now();
        let others_come = cancelled.is_empty() && seen.newest > newest;
        if !seen.ours.is_empty() || others_come {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() >= quiet_for {
            break;
        }
        newest = newest.max(seen.newest);
        for id in seen.ours {
            match client.cancel_job(id).await {
                Ok(()) | Err(Error::NotFound { .. }) => _ = cancelled.insert(id),
                Err(error) if error.is_transient() => return Err(error),
                // It ended between the look and the call.
                Err(error) => tracing::debug!(job = id, %error, "job was not cancelled"),
            }
            *answered = Instant::now();
        }
        tokio::time::sleep(ROUND).await;
    }
    if !cancelled.is_empty() {
        heard_of_it(client).await?;
    }
    Ok(())
}

/// Waits until each job worker has sent two more heartbeats, so that the tasks of cancelled jobs have ended.
async fn heard_of_it(client: &Client) -> Result<(), Error> {
    let mut beats = std::collections::HashMap::new();
    let until = Instant::now() + TASKS_STOP;
    while Instant::now() < until {
        let mut waiting = false;
        for worker in client.job_workers().await? {
            let (last, count) = beats.entry(worker.id).or_insert((worker.last_updated_ms, 0));
            if *last != worker.last_updated_ms {
                (*last, *count) = (worker.last_updated_ms, *count + 1);
            }
            waiting |= *count < 2;
        }
        if !waiting {
            break;
        }
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

/// Jobs that have not ended.
#[derive(Debug, Default)]
struct LiveJobs {
    ours: Vec<i64>,
    /// Largest id of a load, whoever's; 0 where it does not matter.
    newest: i64,
}

async fn live(client: &Client, path: &AlluxioPath, remnant: Remnant) -> Result<LiveJobs, Error> {
    if let Some(control) = remnant.job_control_id {
        return match client.command_jobs(control).await {
            Ok(jobs) => {
                let live = jobs.into_iter().filter(|job| !job.status.is_finished());
                Ok(LiveJobs { ours: live.map(|job| job.id).collect(), newest: 0 })
            }
            // The job master forgot the command: it was restarted, and its jobs went with it.
            Err(Error::NotFound { .. }) => Ok(LiveJobs::default()),
            Err(error) => Err(error),
        };
    }
    let jobs = client.jobs(&LIVE).await?;
    // Asked for later than the jobs, so that it misses none of the older command's.
    let job_floor = floor_of_ours(client.job_ids(&[]).await?, remnant.job_floor);
    let remnant = Remnant { job_floor, ..remnant };
    let ours = jobs.iter().filter(|job| is_ours(job, path, remnant)).map(|job| job.id).collect();
    let newest = jobs.iter().filter(|job| job.name == LOAD).map(|job| job.id).max();
    Ok(LiveJobs { ours, newest: newest.unwrap_or(0) })
}

/// The last id before the first that is not listed: our command's own, or an older one.
fn floor_of_ours(mut listed: Vec<i64>, job_floor: i64) -> i64 {
    listed.sort_unstable();
    listed.into_iter().fold(job_floor, |floor, id| if id == floor + 1 { id } else { floor })
}

/// `job` was made by our command.
#[must_use]
pub fn is_ours(job: &Job, path: &AlluxioPath, remnant: Remnant) -> bool {
    job.name == LOAD
        && job.id > remnant.job_floor
        && !job.affected_paths.is_empty()
        && job.affected_paths.iter().all(|affected| path.contains(affected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, id: i64, paths: &[&str]) -> Job {
        let affected_paths = paths.iter().map(|p| (*p).to_owned()).collect();
        Job { name: name.into(), id, affected_paths, ..Job::default() }
    }

    #[test]
    fn jobs_that_an_older_command_starts_later_are_not_ours() {
        // 100 was there when ours began; 101 to 103 are the older command's, 104 is our command.
        assert_eq!(floor_of_ours(vec![105, 103, 102, 101, 100, 7], 100), 103);
        assert_eq!(floor_of_ours(vec![102, 103, 100], 100), 100);
        assert_eq!(floor_of_ours(vec![], 100), 100);
    }

    #[test]
    fn only_younger_loads_below_our_path_are_ours() {
        let path = AlluxioPath::try_from("/data/a".to_owned()).unwrap();
        let remnant = Remnant { job_floor: 100, job_control_id: None };
        let ours = |job: &Job| is_ours(job, &path, remnant);
        assert!(ours(&job("Load", 101, &["/data/a/f"])));
        assert!(ours(&job("Load", 101, &["/data/a"])));
        assert!(!ours(&job("Load", 100, &["/data/a/f"])), "began before us");
        assert!(!ours(&job("Load", 101, &["/data/ab"])), "another path");
        assert!(!ours(&job("Load", 101, &["/data/a/f", "/data/b/f"])), "partly another path");
        assert!(!ours(&job("Load", 101, &[])), "unknown path");
        for name in ["Persist", "Replicate", "Evict", "Migrate", "SetReplica"] {
            assert!(!ours(&job(name, 101, &["/data/a/f"])), "{name}");
        }
    }
}
