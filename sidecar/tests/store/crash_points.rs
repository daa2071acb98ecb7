//! Every write and sync of a scenario of five loads is, in turn, the moment of a SIGKILL, and fails with EIO
//! (`strace --inject`): what was acknowledged is there afterwards, and nothing is halved.
//!
//! strace counts per thread, so each thread has a fault of its own: a scenario in a new directory hits the thread that
//! makes the store, one on a store that is there already hits the writer.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Write as _, stdout},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
};

use preload_sidecar::{
    job::State,
    store::{Created, Deleted, ListQuery, Store},
};
use tempfile::tempdir;

use crate::{
    ROOM, ended, id,
    kill::{LAST, failure, version},
    open, put, queued,
};

const DIR: &str = "PRELOAD_TEST_CRASH_DIR";
const LOADS: u64 = 5;
/// A finished load that the scenario deletes.
const OLD: &str = "old";
/// Far beyond what a scenario needs: ends a loop that would not end.
const MOST_POINTS: usize = 2000;
/// What changes a file, or makes a change durable.
const CALLS: [&str; 5] = ["pwrite64", "fsync", "ftruncate", "rename", "unlink"];

fn name(number: u64) -> String {
    format!("r0-w0-n{number}")
}

/// Runs in the child only. Says what it tries, and what it was acknowledged.
#[test]
fn child() {
    let Ok(dir) = env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let say = |line: String| writeln!(stdout(), "{line}").unwrap();
    // The test harness has begun a line.
    say(String::new());
    let store = match Store::open(Path::new(&dir)) {
        Ok(store) => store,
        Err(error) => return say(format!("closed {error}")),
    };
    runtime.block_on(async {
        for number in 0..LOADS {
            for sequence in 1..=LAST {
                let (name, job) = (name(number), version(&name(number), sequence));
                say(format!("try {name} {sequence}"));
                let done = match sequence {
                    1 => store.create(job, ROOM).await.map(|created| assert_eq!(created, Created::New)),
                    LAST => {
                        let failures = vec![failure(&name); 3];
                        match store.append_failures(job.uid, sequence, failures).await {
                            Ok(()) => store.update(job).await,
                            Err(error) => Err(error),
                        }
                    }
                    _ => store.update(job).await,
                };
                match done {
                    Ok(()) => say(format!("ack {name} {sequence}")),
                    // The rest of this load builds on what is not there.
                    Err(error) => {
                        say(format!("refused {error}"));
                        break;
                    }
                }
            }
        }
        say("delete".to_owned());
        match store.delete(&id(OLD)).await {
            Ok(Deleted::Yes | Deleted::NotFound) => say("deleted".to_owned()),
            Ok(Deleted::StillLive(job)) => panic!("{job:?}"),
            Err(error) => say(format!("refused {error}")),
        }
        store.close().await;
    });
    say("done".to_owned());
}

/// What a child said before it ended.
#[derive(Debug)]
struct Said {
    /// The injected fault was met.
    hit: bool,
    lines: Vec<String>,
}

/// The child on `dir`, with a fault at the `point`th call.
fn suffer(dir: &Path, call: &str, fault: &str, point: usize) -> Said {
    let trace = dir.with_extension("trace");
    let output = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "--output"])
        .arg(&trace)
        .arg(format!("--trace={call}"))
        .arg(format!("--inject={call}:{fault}:when={point}"))
        .arg(env::current_exe().unwrap())
        .args(["--exact", "crash_points::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .output()
        .expect("strace is missing: run 'sudo apt-get install -y strace'");
    let killed = output.status.signal() == Some(9);
    let injected = fs::read_to_string(&trace).unwrap().contains("INJECTED");
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
    let ended = killed || lines.iter().any(|line| line == "done" || line.starts_with("closed "));
    assert!(ended, "{call} {fault} {point}: {output:?}");
    Said { hit: killed || injected, lines }
}

/// The store opens, holds what was acknowledged, and nothing that was not tried.
async fn check(dir: &Path, said: &Said, had_old: bool, what: &str) {
    let (mut tried, mut acknowledged) = (BTreeMap::new(), BTreeMap::new());
    let (mut delete, mut deleted) = (false, false);
    for line in &said.lines {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["try", name, sequence] => _ = tried.insert(name, sequence.parse::<u64>().unwrap()),
            ["ack", name, sequence] => _ = acknowledged.insert(name, sequence.parse::<u64>().unwrap()),
            ["delete"] => delete = true,
            ["deleted"] => deleted = true,
            ["closed" | "refused", ..] => {
                // Or the folder that it is made in.
                let folder = dir.parent().unwrap().to_string_lossy();
                assert!(line.contains("loads.sqlite3") || line.contains(&*folder), "{what}: {line}");
            }
            _ => {}
        }
    }
    let store = open(dir).await;
    let all = store.list(ListQuery { limit: ROOM, ..ListQuery::default() }).await.unwrap();
    let names: Vec<_> = all.iter().map(|(_, job)| job.id.as_str().to_owned()).collect();
    for (name, sequence) in &acknowledged {
        let job = store.get(&id(name)).await.unwrap().unwrap_or_else(|| panic!("{what}: {name} is lost"));
        assert!(job.sequence >= *sequence, "{what}: {name} at {sequence} was promised: {job:?}");
        assert!(names.iter().any(|listed| listed == name), "{what}: {name} is not listed");
    }
    for (_, job) in &all {
        if job.id.as_str() == OLD {
            assert!(had_old && !deleted, "{what}: what was deleted is back");
            continue;
        }
        let most = tried.get(job.id.as_str()).unwrap_or_else(|| panic!("{what}: nobody made {job:?}"));
        assert!(job.sequence <= *most, "{what}: {job:?}");
        assert_eq!(*job, version(job.id.as_str(), job.sequence), "{what}: neither mixed nor halved");
        if job.sequence == LAST {
            assert_eq!(store.failures(job.uid, LAST, 0, 10).await.unwrap().len(), 3, "{what}: {}", job.id);
        }
    }
    assert!(!had_old || delete || names.iter().any(|name| name == OLD), "{what}: {OLD} is lost");
    assert_eq!(store.scrub().await.unwrap(), [], "{what}");
    // It goes on.
    put(&store, &queued("later")).await;
    store.close().await;
}

/// All points of all calls with one fault; gives how many there were of each call.
async fn at_every_point(fault: &str, old: bool) -> BTreeMap<&'static str, usize> {
    let mut points = BTreeMap::new();
    for call in CALLS {
        for point in 1..=MOST_POINTS {
            let folder = tempdir().unwrap();
            let dir = folder.path().join("state");
            if old {
                let store = open(&dir).await;
                put(&store, &ended(queued(OLD), State::Failed, 1)).await;
                store.close().await;
            }
            let said = suffer(&dir, call, fault, point);
            check(&dir, &said, old, &format!("{fault} at {call} {point}, {said:?}")).await;
            if !said.hit {
                points.insert(call, point - 1);
                break;
            }
        }
    }
    assert_eq!(points.len(), CALLS.len(), "some call never comes to an end: {points:?}");
    eprintln!("{fault}, on {}: {points:?}", if old { "an old store" } else { "a new store" });
    points
}

#[tokio::test]
async fn killed_at_every_write_of_an_old_store() {
    let points = at_every_point("signal=KILL", true).await;
    assert!(points["pwrite64"] > 50 && points["fsync"] > 20, "the faults do not reach it: {points:?}");
}

#[tokio::test]
async fn killed_at_every_write_that_makes_a_store() {
    let points = at_every_point("signal=KILL", false).await;
    assert!(points["rename"] == 1 && points["fsync"] > 0, "the faults do not reach it: {points:?}");
}

#[tokio::test]
async fn each_write_of_an_old_store_fails() {
    let points = at_every_point("error=EIO", true).await;
    assert!(points["pwrite64"] > 50 && points["fsync"] > 20, "the faults do not reach it: {points:?}");
}

#[tokio::test]
async fn each_write_that_makes_a_store_fails() {
    let points = at_every_point("error=EIO", false).await;
    assert!(points["rename"] == 1 && points["fsync"] > 0, "the faults do not reach it: {points:?}");
}
