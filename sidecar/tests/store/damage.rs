//! Bit rot in the file, and a cut file: a job is served as one of its acknowledged versions, or refused by name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use preload_sidecar::{
    job::{Failure, Job, LoadId, State},
    store::{Created, Deleted, ListQuery, OpenError, Store, StoreError},
};
use tempfile::{TempDir, tempdir};

use crate::{ROOM, ended, id, loaded, open, put, queued};

pub(crate) const DB: &str = "loads.sqlite3";
pub(crate) const LOG: &str = "loads.sqlite3-wal";

/// A store as a crash left it, and what it had acknowledged.
pub(crate) struct Image {
    dir: TempDir,
    versions: BTreeMap<LoadId, Vec<Job>>,
    /// All jobs, first created first: those in the file, then after each commit of the log.
    pub(crate) history: Vec<Vec<Job>>,
}

/// What became of damaged copies.
#[derive(Debug, Default)]
struct Outcomes {
    refused: usize,
    repaired_or_harmless: usize,
    some_refused: usize,
}

impl Image {
    /// 32 jobs of several sizes in the file; then 4 changes and 2 more jobs, in the log if `log`.
    pub(crate) async fn new(log: bool) -> Self {
        let live = tempdir().unwrap();
        let dir = tempdir().unwrap();
        let store = open(live.path()).await;
        let mut versions = BTreeMap::new();
        let mut jobs = Vec::new();
        let mut failure = Failure {
            path: "/data/f".to_owned(),
            length: 1,
            bytes_missing: 1,
            replicas_seen: 0,
            reason: String::new(),
        };
        for n in 0..32 {
            let mut job = queued(&format!("job-{n:02}"));
            // Some reach over several pages.
            job.message = "m".repeat(if n % 8 == 0 { 9000 } else { n });
            job = match n % 4 {
                0 => job,
                1 => loaded(job, "cluster-1"),
                2 => loaded(job, "cluster-2"),
                _ => ended(job, State::Failed, 7),
            };
            put(&store, &job).await;
            failure.reason = "r".repeat(n);
            store.append_failures(job.uid, 1, vec![failure.clone(); 2]).await.unwrap();
            versions.insert(job.id.clone(), vec![job.clone()]);
            jobs.push(job);
        }
        let mut history = vec![jobs.clone()];
        store.close().await;
        let store = open(live.path()).await;
        for n in 0..4 {
            let acknowledged = versions.get_mut(&id(&format!("job-{:02}", n * 4))).unwrap();
            let next = loaded(acknowledged[0].clone(), "cluster-3");
            store.update(next.clone()).await.unwrap();
            acknowledged.push(next.clone());
            jobs[n * 4] = next;
            history.push(jobs.clone());
        }
        for n in 0..2 {
            let job = queued(&format!("late-{n}"));
            put(&store, &job).await;
            versions.insert(job.id.clone(), vec![job.clone()]);
            jobs.push(job);
            history.push(jobs.clone());
        }
        if !log {
            store.close().await;
            fs::copy(live.path().join(DB), dir.path().join(DB)).unwrap();
            return Self { dir, versions, history };
        }
        // Copied while it is open and at rest: what kill -9 leaves.
        for file in [DB, LOG] {
            fs::copy(live.path().join(file), dir.path().join(file)).unwrap();
        }
        store.close().await;
        Self { dir, versions, history }
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(file)).unwrap()
    }

    /// A copy in which `file` holds `content`.
    pub(crate) fn with(&self, file: &str, content: &[u8]) -> TempDir {
        let copy = tempdir().unwrap();
        for entry in self.dir.path().read_dir().unwrap() {
            let name = entry.unwrap().file_name();
            fs::copy(self.dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        fs::write(copy.path().join(file), content).unwrap();
        copy
    }

    /// Uses a damaged copy, twice, and checks every answer.
    async fn check(&self, dir: &Path, what: &str, outcomes: &mut Outcomes) {
        let mut some_refused = false;
        for _ in 0..2 {
            match Store::open(dir) {
                Err(error) => {
                    assert!(
                        matches!(
                            &error,
                            OpenError::Damaged { file, .. } | OpenError::Newer { file, .. } if *file == dir.join(DB)
                        ),
                        "{what}: {error}"
                    );
                    assert!(error.to_string().contains("aside"), "{what}: no next step in: {error}");
                    outcomes.refused += 1;
                    return;
                }
                Ok(store) => {
                    some_refused |= self.use_all(&store, what).await;
                    store.close().await;
                }
            }
        }
        if some_refused {
            outcomes.some_refused += 1;
        } else {
            outcomes.repaired_or_harmless += 1;
        }
    }

    /// Whether anything was refused.
    async fn use_all(&self, store: &Store, what: &str) -> bool {
        let mut refused = false;
        let mut refuse = |error: StoreError| {
            let by_name = matches!(error, StoreError::Damaged { .. } | StoreError::Corrupt { .. });
            assert!(by_name, "{what}: {error}");
            refused = true;
        };
        let known = |job: &Job| {
            let versions = self.versions.get(&job.id);
            assert!(versions.is_some_and(|v| v.contains(job)), "{what}: never acknowledged: {job:?}");
        };
        match store.live().await {
            Ok(jobs) => jobs.iter().filter(|job| job.id.as_str() != "new").for_each(known),
            Err(error) => refuse(error),
        }
        for scrubbed in [false, true] {
            for (id, versions) in &self.versions {
                match store.get(id).await {
                    Ok(Some(job)) => assert!(versions.contains(&job), "{what}: never acknowledged: {job:?}"),
                    Ok(None) => panic!("{what}: {id} is gone without a word, scrubbed: {scrubbed}"),
                    Err(error) => refuse(error),
                }
            }
            match store.list(ListQuery { limit: 1000, ..ListQuery::default() }).await {
                Ok(jobs) => {
                    jobs.iter().map(|(_, job)| job).filter(|job| job.id.as_str() != "new").for_each(known)
                }
                Err(error) => refuse(error),
            }
            match store.loaded_elsewhere("cluster-1").await {
                Ok(jobs) => jobs.iter().for_each(known),
                Err(error) => refuse(error),
            }
            match store.scrub().await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => found.into_iter().for_each(|q| refuse(StoreError::Damaged { id: q.id })),
                Err(error) => refuse(error),
            }
        }
        match store.create(queued("new"), ROOM).await {
            Ok(Created::New | Created::Exists(_)) => {
                assert!(matches!(store.get(&id("new")).await, Ok(Some(_)) | Err(_)), "{what}");
            }
            Ok(other) => panic!("{what}: {other:?}"),
            Err(error) => refuse(error),
        }
        refused
    }
}

/// Reproducible offsets (splitmix64).
pub(crate) fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }
}

async fn flips(log: bool, rounds: usize, seed: u64) -> Outcomes {
    let image = Image::new(log).await;
    let content = image.read(DB);
    let mut random = random(seed);
    let mut outcomes = Outcomes::default();
    for _ in 0..rounds {
        let (at, bit) = (random(content.len()), random(8));
        let mut bad = content.clone();
        bad[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at}, log {log}");
        image.check(image.with(DB, &bad).path(), &what, &mut outcomes).await;
    }
    println!("log {log}: {outcomes:?}");
    outcomes
}

#[tokio::test]
async fn a_flipped_bit_in_the_file_is_never_served_and_hides_nothing() {
    let outcomes = flips(false, 200, 1).await;
    assert!(outcomes.some_refused > 0 && outcomes.refused > 0 && outcomes.repaired_or_harmless > 0);
}

#[tokio::test]
async fn a_flipped_bit_in_the_file_below_a_log() {
    flips(true, 100, 2).await;
}

#[tokio::test]
async fn every_bit_of_the_header_counts_or_is_noticed() {
    let image = Image::new(false).await;
    let content = image.read(DB);
    let mut outcomes = Outcomes::default();
    for at in 0..100 {
        let mut bad = content.clone();
        bad[at] ^= 1 << (at % 8);
        image.check(image.with(DB, &bad).path(), &format!("header byte {at}"), &mut outcomes).await;
    }
    assert!(outcomes.refused > 30, "{outcomes:?}");
}

#[tokio::test]
async fn a_cut_file_is_refused_or_serves_the_rest() {
    for log in [false, true] {
        let image = Image::new(log).await;
        let content = image.read(DB);
        let mut outcomes = Outcomes::default();
        for length in (0..content.len()).step_by(512) {
            let what = format!("file cut at {length} of {}, log {log}", content.len());
            image.check(image.with(DB, &content[..length]).path(), &what, &mut outcomes).await;
        }
        println!("log {log}: {outcomes:?}");
        assert!(outcomes.refused > 0);
    }
}

#[tokio::test]
async fn a_log_without_its_file_is_not_taken_for_a_new_store() {
    let image = Image::new(true).await;
    fs::remove_file(image.dir.path().join(DB)).unwrap();
    let error = Store::open(image.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    for content in ["", "not a database", &"x".repeat(10_000)] {
        fs::write(dir.path().join(DB), content).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join(DB)).unwrap(), content);
    }
    fs::remove_file(dir.path().join(DB)).unwrap();
    let foreign = rusqlite::Connection::open(dir.path().join(DB)).unwrap();
    foreign.execute_batch("CREATE TABLE a(b)").unwrap();
    drop(foreign);
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

/// Where `needle` is in the only file that has it.
pub(crate) fn position(content: &[u8], needle: &[u8]) -> usize {
    content.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// A closed store with three jobs; one bit of the body of "victim" is wrong.
async fn with_a_damaged_row(mark: &str) -> (TempDir, Job) {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut victim = queued("victim");
    victim.message = mark.to_owned();
    for job in [queued("before"), victim.clone(), queued("after")] {
        put(&store, &job).await;
    }
    store.close().await;
    let file: PathBuf = dir.path().join(DB);
    let mut content = fs::read(&file).unwrap();
    let at = position(&content, mark.as_bytes());
    content[at] ^= 1;
    fs::write(&file, content).unwrap();
    (dir, victim)
}

#[tokio::test]
async fn a_damaged_row_is_refused_by_name_and_the_rest_is_served() {
    let (dir, victim) = with_a_damaged_row("find-me").await;
    let damaged = StoreError::Damaged { id: "victim".to_owned() };
    for _ in 0..2 {
        let store = open(dir.path()).await;
        let names = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.id.to_string()).collect::<Vec<_>>();
        assert_eq!(names(store.live().await.unwrap()), ["before", "after"]);
        assert_eq!(store.get(&id("victim")).await, Err(damaged.clone()));
        assert_eq!(store.create(queued("victim"), ROOM).await, Err(damaged.clone()));
        let listed = store.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap();
        assert_eq!(names(listed.into_iter().map(|(_, job)| job).collect()), ["after", "before"]);
        assert_eq!(store.scrub().await.unwrap(), [], "known by now");
        assert_eq!(store.create(queued("more"), 2).await.unwrap(), Created::Full { live: 2 });
        store.close().await;
    }
    let store = open(dir.path()).await;
    let evidence = rusqlite::Connection::open(dir.path().join(DB)).unwrap();
    let (id_kept, reason, content): (String, String, String) = evidence
        .query_one("SELECT id, reason, content FROM quarantine", (), |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .unwrap();
    drop(evidence);
    assert_eq!((id_kept.as_str(), reason.as_str()), ("victim", "the checksum does not hold"));
    assert!(content.contains(&victim.uid.to_string()), "{content}");
    assert_eq!(store.delete(&id("victim")).await.unwrap(), Deleted::Yes);
    assert_eq!(store.get(&id("victim")).await.unwrap(), None);
    put(&store, &queued("victim")).await;
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.live().await.unwrap().len(), 3);
    assert_eq!(store.scrub().await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn a_job_in_memory_replaces_its_damaged_row() {
    let (dir, mut victim) = with_a_damaged_row("find-me").await;
    let store = open(dir.path()).await;
    victim.message = "better".to_owned();
    store.update(victim.clone()).await.unwrap();
    assert_eq!(store.get(&id("victim")).await.unwrap(), Some(victim.clone()));
    assert_eq!(store.live().await.unwrap().len(), 3);
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.get(&id("victim")).await.unwrap(), Some(victim));
    store.close().await;
}

#[tokio::test]
async fn a_scrub_finds_what_nobody_asked_for() {
    let (dir, _) = with_a_damaged_row("find-me").await;
    let store = open(dir.path()).await;
    let found = store.scrub().await.unwrap();
    assert_eq!(found.iter().map(|q| q.id.as_str()).collect::<Vec<_>>(), ["victim"]);
    store.close().await;
}

#[tokio::test]
async fn retention_also_ends_quarantine() {
    let (dir, _) = with_a_damaged_row("find-me").await;
    let store = open(dir.path()).await;
    assert!(store.get(&id("victim")).await.is_err());
    store.prune(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60), ROOM, |_| false).await.unwrap();
    assert_eq!(store.get(&id("victim")).await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn readers_that_meet_damage_at_the_same_time_agree() {
    let (dir, _) = with_a_damaged_row("find-me").await;
    let store = open(dir.path()).await;
    let victim = id("victim");
    let answers = join_all((0..16).map(|_| store.get(&victim))).await;
    for answer in answers {
        assert_eq!(answer, Err(StoreError::Damaged { id: "victim".to_owned() }));
    }
    store.close().await;
}

#[tokio::test]
async fn a_damaged_index_is_made_again_when_the_store_is_opened() {
    const INDEX_LEAF: u8 = 10;
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let victim = loaded(queued("victim"), "cluster-of-victim");
    for job in [&queued("other"), &victim] {
        put(&store, job).await;
    }
    store.close().await;
    let whole = fs::read(dir.path().join(DB)).unwrap();
    let mut damaged = 0;
    for (number, page) in whole.chunks_exact(4096).enumerate() {
        for key in ["victim", "cluster-of-victim"] {
            let Some(at) = page.windows(key.len()).position(|window| window == key.as_bytes()) else {
                continue;
            };
            if page[0] != INDEX_LEAF {
                continue;
            }
            damaged += 1;
            let mut content = whole.clone();
            content[number * 4096 + at] ^= 1;
            fs::write(dir.path().join(DB), content).unwrap();
            let store = open(dir.path()).await;
            assert_eq!(store.get(&id("victim")).await, Ok(Some(victim.clone())));
            assert_eq!(store.loaded_elsewhere("cluster-of-victim").await, Ok(vec![]));
            assert_eq!(store.loaded_elsewhere("").await, Ok(vec![victim.clone()]));
            assert_eq!(store.scrub().await, Ok(vec![]));
            store.close().await;
        }
    }
    assert_eq!(damaged, 3, "jobs_id, and twice jobs_loaded, whose key holds both");
}

/// The page that leads to all others of the table, and the kind of each page that holds rows.
#[tokio::test]
async fn a_damaged_page_of_the_table_costs_no_list() {
    const INTERIOR: u8 = 5;
    const LEAF: u8 = 13;
    const HEADER: usize = 12;
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut known = BTreeMap::new();
    for number in 0..40 {
        let mut job = queued(&format!("job-{number}"));
        job.message = "m".repeat(900);
        put(&store, &job).await;
        known.insert(job.id.clone(), job);
    }
    store.close().await;
    let file = dir.path().join(DB);
    let whole = fs::read(&file).unwrap();
    let conn = rusqlite::Connection::open(&file).unwrap();
    let root: i64 = conn
        .query_one("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'", (), |row| row.get(0))
        .unwrap();
    drop(conn);
    let page = usize::try_from(root - 1).unwrap() * 4096;
    assert_eq!(whole[page], INTERIOR);
    let rows = b"mmmmmmmm";
    let leaves = whole.chunks_exact(4096).enumerate();
    let leaves = leaves.filter(|(_, p)| p[0] == LEAF && p.windows(rows.len()).any(|window| window == rows));
    let kinds = leaves.map(|(number, _)| (number * 4096, 1));
    let flips: Vec<(usize, usize)> =
        (0..16).map(|byte| (page + HEADER + byte, byte % 8)).chain(kinds).collect();
    assert!(flips.len() > 20);
    let (mut served, mut refused) = (0, 0);
    for (byte, bit) in flips {
        let copy = tempdir().unwrap();
        let mut content = whole.clone();
        content[byte] ^= 1 << bit;
        fs::write(copy.path().join(DB), content).unwrap();
        let directory = copy.path().to_owned();
        let Ok(store) = tokio::task::spawn_blocking(move || Store::open(&directory)).await.unwrap() else {
            refused += 1;
            continue;
        };
        let listed = store.list(ListQuery { limit: 100, ..ListQuery::default() }).await.unwrap();
        assert!(listed.is_sorted_by(|(a, _), (b, _)| a > b), "byte {byte}: twice, or out of order");
        for (_, job) in &listed {
            assert_eq!(known.get(&job.id), Some(job), "byte {byte}");
        }
        for (id, job) in &known {
            match store.get(id).await {
                Ok(found) => assert_eq!(found.as_ref(), Some(job), "byte {byte}"),
                Err(error) => assert_eq!(error, StoreError::Damaged { id: id.to_string() }, "byte {byte}"),
            }
        }
        store.close().await;
        served += 1;
    }
    assert!(served > 0, "{refused} refused");
}
