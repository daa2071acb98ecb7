//! kill -9 of a process that acknowledges writes on its standard output: nothing it said may be lost.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _, stdout},
    path::Path,
    process::{Child, Command, Stdio},
};

use preload_sidecar::{
    job::{Failure, FailureList, Job, State},
    store::{Created, ListQuery, Store},
};
use tempfile::tempdir;
use uuid::Uuid;

use crate::{ROOM, ended, id, open, queued};

const ROUNDS: usize = 24;
const WRITERS: usize = 8;
/// The last version of a job.
pub(crate) const LAST: u64 = 4;
const DIR: &str = "PRELOAD_TEST_KILL_DIR";
const ROUND: &str = "PRELOAD_TEST_KILL_ROUND";

/// The one content that a version of a job may have: names are `r<round>-w<writer>-n<number>`.
pub(crate) fn version(name: &str, sequence: u64) -> Job {
    let mut job = queued(name);
    let digits: String = name.chars().map(|c| if c.is_ascii_digit() { c } else { '0' }).collect();
    job.uid = Uuid::from_u128(digits.parse().unwrap());
    job.sequence = sequence;
    job.message = format!("{name} at {sequence} ").repeat(20 * usize::try_from(sequence).unwrap());
    if sequence == LAST {
        job.failures = FailureList { generation: sequence, count: 3 };
        job = ended(job, State::Failed, 1);
        job.sequence = sequence;
    }
    job
}

pub(crate) fn failure(name: &str) -> Failure {
    Failure { path: format!("/{name}"), length: 0, bytes_missing: 0, replicas_seen: 0, reason: String::new() }
}

/// Runs in the child only: writes until it is killed.
#[test]
fn child() {
    let (Ok(dir), Ok(round)) = (env::var(DIR), env::var(ROUND)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir)).await;
        let writers = (0..WRITERS).map(|writer| {
            let (store, round) = (store.clone(), round.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    write(&store, &format!("r{round}-w{writer}-n{number}")).await;
                }
            })
        });
        futures_util::future::join_all(writers).await
    });
}

async fn write(store: &Store, name: &str) {
    for sequence in 1..=LAST {
        let job = version(name, sequence);
        if sequence == 1 {
            assert_eq!(store.create(job, ROOM).await.unwrap(), Created::New);
        } else {
            if sequence == LAST {
                store.append_failures(job.uid, sequence, vec![failure(name); 3]).await.unwrap();
            }
            store.update(job).await.unwrap();
        }
        if writeln!(stdout(), "ack {name} {sequence}").is_err() {
            std::process::exit(1); // Nobody listens any more.
        }
    }
}

/// Killed, and waited for, however the test ends.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child, kills it after `lines` acknowledgements, and returns all that it gave.
fn run_and_kill(dir: &Path, round: usize, lines: usize) -> Vec<(String, u64)> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Leash(child);
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        // The last line may be cut.
        if let Some(ack) = line.strip_suffix('\n').and_then(|line| line.split_once("ack ")) {
            let (name, sequence) = ack.1.split_once(' ').unwrap();
            acknowledged.push((name.to_owned(), sequence.parse().unwrap()));
        }
        line.clear();
        if acknowledged.len() == lines {
            child.0.kill().unwrap();
        }
    }
    assert!(acknowledged.len() >= lines, "the child ended by itself in round {round}");
    acknowledged
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempdir().unwrap();
    let mut promised: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        // From the first moments of a store to logs that were folded in several times.
        let lines = 1 + round * round * 3;
        for (name, sequence) in run_and_kill(dir.path(), round, lines) {
            let latest = promised.entry(name).or_default();
            *latest = sequence.max(*latest);
        }
        let store = open(dir.path()).await;
        for (name, sequence) in &promised {
            let job = store.get(&id(name)).await.unwrap().unwrap_or_else(|| panic!("{name} is lost"));
            let range = *sequence..=LAST.min(sequence + 1);
            assert!(
                range.contains(&job.sequence),
                "{name}: {sequence} was promised, {} is there",
                job.sequence
            );
        }
        let all = store.list(ListQuery { limit: ROOM, ..ListQuery::default() }).await.unwrap();
        assert!(all.len() >= promised.len() && all.len() <= promised.len() + WRITERS * (round + 1));
        for (_, job) in all {
            assert_eq!(job, version(job.id.as_str(), job.sequence), "neither mixed nor halved");
            if job.sequence == LAST {
                let failures = store.failures(job.uid, LAST, 0, 10).await.unwrap();
                assert_eq!(failures.len(), 3, "{}", job.id);
            }
        }
        assert_eq!(store.scrub().await.unwrap(), []);
        store.close().await;
    }
}
