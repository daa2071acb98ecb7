//! Every write and sync of a few loads is, in turn, the moment of a SIGKILL, and fails with EIO (`strace --inject`):
//! what was acknowledged is there afterwards, and nothing is halved.
//!
//! First the scenario runs without a fault. The trace of that run says what there is to hit, and every run with a
//! fault is compared with it: no write is passed over.

mod strace;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Write as _, stdout},
    path::Path,
};

use preload_sidecar::{
    job::State,
    store::{Created, Deleted, ListQuery, Store},
};
use tempfile::{TempDir, tempdir};

use crate::{
    ROOM, ended, id,
    kill::{LAST, failure, version},
    open, put, queued,
};
use strace::{Fault, READ, Run, Target};

const DIR: &str = "PRELOAD_TEST_CRASH_DIR";
const ROUND: &str = "PRELOAD_TEST_CRASH_ROUND";
const LOADS: &str = "PRELOAD_TEST_CRASH_LOADS";
/// The state directory, in a folder of its own.
const STATE: &str = "state";
const DB: &str = "state/loads.sqlite3";
const LOG: &str = "state/loads.sqlite3-wal";
/// A finished load that the scenario deletes.
const OLD: &str = "old";
const KILL: &str = "signal=KILL";
const EIO: &str = "error=EIO";
/// Reads of a long log are much alike.
const READ_STEP: usize = 16;

/// Runs in the child only. Says what it tries, and what it was acknowledged.
#[test]
fn child() {
    let Ok(dir) = env::var(DIR) else { return };
    let (round, loads) = (env::var(ROUND).unwrap(), env::var(LOADS).unwrap().parse::<usize>().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let say = |line: String| writeln!(stdout(), "{line}").unwrap();
    // The test harness has begun a line.
    say(String::new());
    let store = match Store::open(Path::new(&dir)) {
        Ok(store) => store,
        Err(error) => return say(format!("closed {error}")),
    };
    runtime.block_on(async {
        for name in (0..loads).map(|number| format!("r{round}-w0-n{number}")) {
            for sequence in 1..=LAST {
                let job = version(&name, sequence);
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

/// Where the child begins, and what it does.
struct Scenario {
    /// Holds the state directory; empty: the store is not there yet.
    start: TempDir,
    /// What was said of `start`.
    said: Vec<String>,
    has_old: bool,
    round: usize,
    loads: usize,
}

impl Scenario {
    fn new_store() -> Self {
        Self { start: tempdir().unwrap(), said: Vec::new(), has_old: false, round: 0, loads: 1 }
    }

    async fn old_store(loads: usize) -> Self {
        let start = tempdir().unwrap();
        let store = open(&start.path().join(STATE)).await;
        put(&store, &ended(queued(OLD), State::Failed, 1)).await;
        store.close().await;
        Self { start, said: Vec::new(), has_old: true, round: 0, loads }
    }

    /// Killed before the last write of its log: this is to be replayed, but for the transaction at its end. So long
    /// that it is folded in and begun anew a little later.
    async fn killed_store() -> Self {
        let before = Self::old_store(12).await;
        let targets = before.run(before.folder().path(), None).targets();
        let target = targets.iter().find(|target| target.is("pwrite64", LOG)).unwrap();
        let start = before.folder();
        let run = before.run(start.path(), Some(Fault { kind: KILL, target, point: target.per_thread[0] }));
        assert!(run.killed && run.output.iter().any(|line| line == "ack r0-w0-n11 4"), "{run:?}");
        assert!(fs::metadata(start.path().join(LOG)).unwrap().len() > 200 * 4096);
        Self { start, said: run.output, has_old: true, round: 1, loads: 2 }
    }

    /// A copy of `start`.
    fn folder(&self) -> TempDir {
        let folder = tempdir().unwrap();
        if self.has_old {
            fs::create_dir(folder.path().join(STATE)).unwrap();
            for entry in self.start.path().join(STATE).read_dir().unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), folder.path().join(STATE).join(entry.file_name())).unwrap();
            }
        }
        folder
    }

    fn run(&self, folder: &Path, fault: Option<Fault<'_>>) -> Run {
        let dir = folder.join(STATE).into_os_string().into_string().unwrap();
        let variables = [(DIR, dir), (ROUND, self.round.to_string()), (LOADS, self.loads.to_string())];
        Run::new(folder, &variables, fault)
    }

    /// A fault at every call, and at none that is not there. Gives what was hit.
    async fn at_every_point(&self, kind: &str) -> Vec<Target> {
        let mut targets = self.run(self.folder().path(), None).targets();
        targets.retain(|target| target.call != READ || self.reads(target, kind));
        let mut runs = 0;
        for target in &targets {
            let most = target.per_thread[0];
            let step = if target.call == READ { READ_STEP } else { 1 };
            for point in (1..=most).step_by(step).chain([most + 1]) {
                let folder = self.folder();
                let fault = Fault { kind, target, point };
                let run = self.run(folder.path(), Some(fault));
                let what = format!("{fault:?}, {run:?}");
                assert_eq!(run.killed || run.errors > 0, point <= most, "{what}");
                if run.killed && target.per_thread.len() == 1 {
                    assert_eq!(run.calls.len(), point, "hit too early or too late: {what}");
                }
                if point == 1 && target.is("pwrite64", LOG) && self.round == 0 {
                    assert!(run.calls[0].text.contains(", 32, 0"), "not the header of the log: {what}");
                }
                self.check(folder.path(), &run, &what).await;
                runs += 1;
            }
        }
        let hit = targets.iter().map(|t| format!("{} {} {:?}", t.call, t.file, t.per_thread));
        eprintln!("{kind}: {runs} runs, {:#?}", hit.collect::<Vec<_>>());
        targets
    }

    /// Reads change nothing: only that they fail matters, and only where a log is replayed.
    fn reads(&self, target: &Target, kind: &str) -> bool {
        kind == EIO && self.round > 0 && [DB, LOG].contains(&&*target.file)
    }

    /// The store opens, holds what was acknowledged, and nothing that was not tried.
    async fn check(&self, folder: &Path, run: &Run, what: &str) {
        let (mut tried, mut acknowledged) = (BTreeMap::new(), BTreeMap::new());
        let (mut delete, mut deleted, mut refused) = (false, false, 0);
        for line in self.said.iter().chain(&run.output) {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["try", name, sequence] => _ = tried.insert(name, sequence.parse::<u64>().unwrap()),
                ["ack", name, sequence] => _ = acknowledged.insert(name, sequence.parse::<u64>().unwrap()),
                ["delete"] => delete = true,
                ["deleted"] => deleted = true,
                ["closed" | "refused", ..] => {
                    // Which file, or the folder that it is made in; and what to do, which is not to give it up.
                    assert!(line.contains(&*folder.to_string_lossy()), "{what}: {line}");
                    assert!(line.contains("; see whether the disk is well (dmesg)"), "{what}: {line}");
                    assert!(!line.contains("aside"), "{what}: {line}");
                    refused += 1;
                }
                _ => {}
            }
        }
        assert!(refused <= run.errors, "{what}: an error stays when its cause is gone");
        let store = open(&folder.join(STATE)).await;
        let all = store.list(ListQuery { limit: ROOM, ..ListQuery::default() }).await.unwrap();
        let names: Vec<_> = all.iter().map(|(_, job)| job.id.as_str()).collect();
        for (name, sequence) in &acknowledged {
            let job = store.get(&id(name)).await.unwrap().unwrap_or_else(|| panic!("{what}: {name} is lost"));
            assert!(job.sequence >= *sequence, "{what}: {name} at {sequence} was promised: {job:?}");
            assert!(names.contains(name), "{what}: {name} is not listed");
        }
        for (_, job) in &all {
            if job.id.as_str() == OLD {
                assert!(self.has_old && !deleted, "{what}: what was deleted is back");
                continue;
            }
            let most = tried.get(job.id.as_str()).unwrap_or_else(|| panic!("{what}: nobody made {job:?}"));
            assert!(job.sequence <= *most, "{what}: {job:?}");
            assert_eq!(*job, version(job.id.as_str(), job.sequence), "{what}: neither mixed nor halved");
            if job.sequence == LAST {
                assert_eq!(
                    store.failures(job.uid, LAST, 0, 10).await.unwrap().len(),
                    3,
                    "{what}: {}",
                    job.id
                );
            }
        }
        assert!(!self.has_old || delete || names.contains(&OLD), "{what}: {OLD} is lost");
        assert_eq!(store.scrub().await.unwrap(), [], "{what}");
        // It goes on.
        put(&store, &queued("later")).await;
        store.close().await;
    }
}

impl Target {
    fn is(&self, call: &str, file: &str) -> bool {
        self.call == call && self.file == file
    }
}

/// Every call on the file and its log was hit: these are written by one thread. So many there are.
fn assert_complete(targets: &[Target]) {
    for target in targets.iter().filter(|target| [DB, LOG].contains(&&*target.file)) {
        assert!(target.call == READ || target.per_thread.len() == 1, "not all are hit: {target:?}");
    }
    let most = |call, file| targets.iter().find(|target| target.is(call, file)).unwrap().per_thread[0];
    assert!(most("pwrite64", LOG) > 30 && most("fsync", LOG) > 5, "{targets:?}");
    assert!(most("pwrite64", DB) > 5 && most("fsync", DB) > 0, "{targets:?}");
}

#[tokio::test]
async fn killed_at_every_write_of_an_old_store() {
    assert_complete(&Scenario::old_store(5).await.at_every_point(KILL).await);
}

#[tokio::test]
async fn each_write_of_an_old_store_fails() {
    assert_complete(&Scenario::old_store(5).await.at_every_point(EIO).await);
}

#[tokio::test]
async fn killed_at_every_write_that_makes_a_store() {
    let targets = Scenario::new_store().at_every_point(KILL).await;
    assert_complete(&targets);
    assert!(targets.iter().any(|target| target.is("rename", "state/loads.sqlite3.new")), "{targets:?}");
}

#[tokio::test]
async fn each_write_that_makes_a_store_fails() {
    let targets = Scenario::new_store().at_every_point(EIO).await;
    assert_complete(&targets);
    assert!(targets.iter().any(|target| target.is("rename", "state/loads.sqlite3.new")), "{targets:?}");
}

#[tokio::test]
async fn killed_at_every_write_after_a_kill() {
    let targets = Scenario::killed_store().await.at_every_point(KILL).await;
    assert_complete(&targets);
    // Folded in, and once more at the end.
    assert!(targets.iter().any(|target| target.is("fsync", DB) && target.per_thread == [2]), "{targets:?}");
}

#[tokio::test]
async fn each_read_and_write_after_a_kill_fails() {
    let targets = Scenario::killed_store().await.at_every_point(EIO).await;
    assert_complete(&targets);
    assert!(targets.iter().any(|target| target.is(READ, LOG) && target.per_thread[0] > 200), "{targets:?}");
}
