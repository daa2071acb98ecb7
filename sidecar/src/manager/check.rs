//! A look at a path that was LOADED: is every block still in the cache?
//!
//! Reads only; what follows from it is [`reverify`](super::reverify)'s. It judges by the rules of `verify`, and by two
//! more, since it may also withdraw:
//! - Silence proves nothing. A worker that is silent, or does not answer, may come back with its blocks: what hangs on
//!   it is neither in place nor gone. One that the master has lost, or has not heard of for [`LOST_AFTER`], is gone, and
//!   its blocks with it.
//! - A master that is new knows of no block before the workers have registered, so for as long it proves nothing to be
//!   gone.
//!
//! Files that were deleted are no longer asked for, and those that somebody is writing not yet.

use std::{collections::HashSet, time::Duration};

use alluxio_client::{Client, Error, File, LoadMetadata, MasterInfo, Worker};
use jiff::Timestamp;

use super::verify::{Change, Failures, ROUNDS, VerifyError, answering, change};
use crate::{
    gates::{self, Shut},
    human::bytes,
    job::{Count, FailureList, Job, Reason},
    store::Store,
    survey::Survey,
};

/// A worker that restarts in place, or has to register with a new master, is back within this. Shorter than the five
/// minutes after which the master gives a worker up (alluxio.master.worker.timeout).
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What a look found.
#[derive(Debug)]
pub(super) enum Finding {
    InPlace(Survey),
    Gone(Survey, FailureList),
    /// Cluster or path are not there any more.
    Lost(Shut),
    /// Not to be judged now.
    Unjudged(Shut),
}

/// What the workers' silence means for their copies.
#[derive(Debug, Default)]
struct Roll {
    /// Live, and answered a call of ours.
    proven: Vec<Worker>,
    /// They may come back. For people: which, and since when.
    doubtful: Vec<(i64, String)>,
}

/// Looks at the path of `job`. `generation`: with those after it, for lists of failures that no other look may use.
pub(super) async fn look(
    client: &Client,
    store: &Store,
    job: &Job,
    generation: u64,
    now: impl Fn() -> Timestamp,
) -> Result<Finding, VerifyError> {
    let mut whole_before = false;
    for round in 0..ROUNDS {
        let master = client.master_info().await?;
        if let Some(finding) = other_cluster(job, &master) {
            return Ok(finding);
        }
        if master.safe_mode {
            return Ok(unjudged("the alluxio master is in safe mode, waiting for its workers"));
        }
        let roll = call_roll(client).await?;
        let failures = Failures::new(store, job.uid, generation + round);
        let counted = count(client, job, &roll, failures).await;
        // A master that was begun anew meanwhile makes void what was seen, or explains why nothing was.
        let after = client.master_info().await?;
        if let Some(finding) = other_cluster(job, &after) {
            return Ok(finding);
        }
        let changed = change(&roll.proven, &call_roll(client).await?.proven);
        if after.start_time_ms != master.start_time_ms || changed == Change::WorkersGone {
            whole_before = false;
            continue;
        }
        let counted = match counted {
            Err(VerifyError::Alluxio(Error::NotFound { .. })) => return Ok(Finding::Lost(no_path(job))),
            counted => counted?,
        };
        if !counted.at_most.is_complete() {
            return Ok(match unsettled(&master, &roll.proven, now()) {
                Some(message) => unjudged(message),
                None => Finding::Gone(counted.at_most, counted.failures),
            });
        }
        if !counted.at_least.is_complete() {
            return Ok(Finding::Unjudged(silent(&counted.at_least, &roll)));
        }
        if changed == Change::None || whole_before {
            return Ok(Finding::InPlace(counted.at_least));
        }
        whole_before = true;
    }
    Ok(unjudged("workers or the master came and went during every look"))
}

/// Copies on proven workers, copies on these and the doubtful ones, and what is missing even then.
struct Counted {
    at_least: Survey,
    at_most: Survey,
    failures: FailureList,
}

async fn count(
    client: &Client,
    job: &Job,
    roll: &Roll,
    mut failures: Failures<'_>,
) -> Result<Counted, VerifyError> {
    let replicas = job.spec.replicas.get();
    let proven: HashSet<i64> = roll.proven.iter().map(|w| w.id).collect();
    let all = proven.iter().copied().chain(roll.doubtful.iter().map(|(id, _)| *id)).collect();
    let (mut at_least, mut at_most) = (Survey::new(replicas, proven), Survey::new(replicas, all));
    let mut listing = client.list(job.spec.path.as_str(), LoadMetadata::Never).await?;
    while let Some(file) = listing.next().await? {
        if is_being_written(&file) {
            continue;
        }
        at_least.add(&file);
        if let Some(tally) = at_most.add(&file) {
            failures.push(tally.failure(&file, replicas, None)).await?;
        }
    }
    Ok(Counted { at_least, at_most, failures: failures.finish().await? })
}

fn is_being_written(file: &File) -> bool {
    !file.folder && !file.completed
}

async fn call_roll(client: &Client) -> Result<Roll, Error> {
    let listed = client.workers().await?;
    let live = listed.iter().filter(|w| gates::is_live(w)).cloned().collect();
    let proven = answering(client, live).await;
    let doubtful = doubtful(&listed, &proven);
    Ok(Roll { proven, doubtful })
}

/// Workers that are neither proven nor gone.
fn doubtful(listed: &[Worker], proven: &[Worker]) -> Vec<(i64, String)> {
    let unproven = listed.iter().filter(|worker| !proven.iter().any(|other| other.id == worker.id));
    let undecided = unproven.filter(|worker| {
        worker.last_contact <= LOST_AFTER && !worker.state.to_ascii_lowercase().contains("lost")
    });
    let described = undecided.map(|worker| {
        let what = if gates::is_live(worker) {
            "does not answer".to_owned()
        } else {
            format!("has been silent for {} s", worker.last_contact.as_secs())
        };
        (worker.id, format!("worker {} {what}", worker.address))
    });
    described.collect()
}

/// Why what is missing may be on workers that this master does not know yet.
fn unsettled(master: &MasterInfo, proven: &[Worker], now: Timestamp) -> Option<String> {
    let up = |since_ms: i64| {
        let ms = now.as_millisecond().saturating_sub(since_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    };
    if up(master.start_time_ms) < LOST_AFTER {
        let up = up(master.start_time_ms).as_secs();
        return Some(format!("the alluxio master is up since {up} s; workers may still have to register"));
    }
    // A master that took over has been up for long, and knows its workers since then.
    let longest = proven.iter().map(|worker| up(worker.start_time_ms)).max()?;
    (longest < LOST_AFTER).then(|| {
        format!("no worker is registered for longer than {} s; others may follow", longest.as_secs())
    })
}

fn other_cluster(job: &Job, master: &MasterInfo) -> Option<Finding> {
    let cluster = &master.cluster_id;
    if cluster.is_empty() || *cluster == job.cluster {
        return None;
    }
    let message = format!("the alluxio cluster is another one now: {cluster}, not {}", job.cluster);
    Some(Finding::Lost(Shut { reason: Reason::ClusterChanged, message }))
}

fn no_path(job: &Job) -> Shut {
    let message = format!("{} does not exist in alluxio any more", job.spec.path);
    Shut { reason: Reason::PathNotFound, message }
}

fn unjudged(message: impl Into<String>) -> Finding {
    Finding::Unjudged(Shut { reason: Reason::AlluxioUnreachable, message: message.into() })
}

fn silent(proven: &Survey, roll: &Roll) -> Shut {
    let who: Vec<_> = roll.doubtful.iter().map(|(_, what)| what.as_str()).collect();
    let message = format!(
        "{} of {} files are whole only with copies on workers that may come back: {}",
        proven.files_missing(),
        proven.files_total,
        who.join(", ")
    );
    Shut { reason: Reason::WorkersMissing, message }
}

/// The figures of what is gone.
pub(super) fn count_of(found: &Survey) -> Count {
    Count { files_failed: found.files_missing(), bytes_failed: found.bytes_missing(), ..found.count(true) }
}

/// For people: how much is gone.
pub(super) fn describe(before: &Count, found: &Survey) -> String {
    let missing = format!(
        "{} of {} files ({})",
        found.files_missing(),
        found.files_total,
        bytes(found.bytes_missing())
    );
    let more = found.files_total.saturating_sub(before.files_total);
    if more == 0 {
        format!("{missing} have left the cache; ListFailures names them")
    } else {
        format!(
            "{missing} are not in the cache, and {more} more are there than were loaded; ListFailures names them"
        )
    }
}

#[cfg(test)]
mod tests {
    use alluxio_client::Block;

    use super::*;

    fn worker(id: i64, last_contact: u64) -> Worker {
        Worker {
            id,
            state: "In Service".into(),
            last_contact: Duration::from_secs(last_contact),
            ..Worker::default()
        }
    }

    #[test]
    fn a_silent_worker_is_doubtful_for_a_minute_and_then_gone() {
        let lost = Worker { state: "LOST".into(), ..worker(5, 30) };
        let listed = [worker(1, 0), worker(2, 1), worker(3, 30), worker(4, 61), lost];
        let doubtful = doubtful(&listed, &listed[..1]);
        assert_eq!(doubtful.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3]);
        assert!(doubtful[0].1.ends_with("does not answer"), "{doubtful:?}");
        assert!(doubtful[1].1.ends_with("silent for 30 s"), "{doubtful:?}");
    }

    #[test]
    fn a_new_master_proves_nothing_to_be_gone() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let since = |seconds: i64| now.as_millisecond() - seconds * 1000;
        let master = |up| MasterInfo { start_time_ms: since(up), ..MasterInfo::default() };
        let known = |up| Worker { start_time_ms: since(up), ..worker(1, 0) };
        assert!(unsettled(&master(59), &[known(100)], now).unwrap().contains("up since 59 s"));
        assert!(unsettled(&master(-5), &[], now).is_some(), "a clock ahead of ours is no proof");
        assert_eq!(unsettled(&master(61), &[known(61), known(2)], now), None);
        assert!(unsettled(&master(500), &[known(2), known(59)], now).unwrap().contains("59 s"), "took over");
        assert_eq!(unsettled(&master(500), &[], now), None, "all workers are lost");
        let never = MasterInfo { start_time_ms: i64::MIN, ..MasterInfo::default() };
        assert_eq!(unsettled(&never, &[], now), None, "no time is too long ago");
    }

    #[test]
    fn what_is_gone_is_said_in_figures() {
        let mut found = Survey::new(1, HashSet::from([1]));
        for workers in [vec![1], vec![], vec![9]] {
            let blocks = vec![Block { id: 0, length: 1024, workers }];
            found.add(&File { length: 1024, completed: true, blocks, ..File::default() });
        }
        let count = count_of(&found);
        assert_eq!((count.files_cached, count.files_failed), (1, 2));
        assert_eq!((count.bytes_cached, count.bytes_failed, count.bytes_total), (1024, 2048, 3072));
        let message = describe(&Count { files_total: 3, ..Count::default() }, &found);
        assert_eq!(message, "2 of 3 files (2.0 KiB) have left the cache; ListFailures names them");
        let message = describe(&Count { files_total: 2, ..Count::default() }, &found);
        assert!(message.contains("1 more are there than were loaded"), "{message}");
    }
}
