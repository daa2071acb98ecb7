//! What a durable load costs: `cargo bench -p preload-sidecar --bench store`.
//!
//! Compared with one 4 KiB append and fdatasync on the same disk, in turns, because disks have moods. The
//! directory is `$PRELOAD_BENCH_DIR`, or the temporary one: give it a real disk, not a tmpfs.

#![expect(clippy::expect_used, reason = "a benchmark ends at the first surprise")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::Timestamp;
use preload_sidecar::{
    job::{AlluxioPath, Job, LoadId, Spec, State, Transition},
    store::{Created, Store},
};
use uuid::Uuid;

const ROUNDS: usize = 11;
const SINGLE: usize = 200;
const CALLERS: usize = 64;
const PER_CALLER: usize = 50;
const FINISHED: usize = 100_000;

fn main() {
    let parent = env::var_os("PRELOAD_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let dir =
        tempfile::Builder::new().prefix("store-bench").tempdir_in(parent).expect("a directory to work in");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        creates(dir.path()).await;
        opens(&dir.path().join("many")).await;
    });
}

async fn creates(dir: &Path) {
    let store = Store::open(&dir.join("creates")).expect("a store");
    let mut raw_file = fs::File::create(dir.join("raw")).expect("a file");
    let (mut raw, mut one, mut rates, mut raw_rates, mut one_rates) =
        (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..SINGLE {
            let at = Instant::now();
            raw_file.write_all(&[7; 4096]).and_then(|()| raw_file.sync_data()).expect("raw append");
            raw.push(at.elapsed());
        }
        raw_rates.push(rate(SINGLE, begin.elapsed()));

        let begin = Instant::now();
        for n in 0..SINGLE {
            let at = Instant::now();
            create(&store, job(&format!("one-{round}-{n}"))).await;
            one.push(at.elapsed());
        }
        one_rates.push(rate(SINGLE, begin.elapsed()));

        let begin = Instant::now();
        let callers = (0..CALLERS).map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..PER_CALLER {
                    create(&store, job(&format!("many-{round}-{caller}-{n}"))).await;
                }
            })
        });
        join_all(callers).await.into_iter().for_each(|caller| caller.expect("a caller"));
        rates.push(rate(CALLERS * PER_CALLER, begin.elapsed()));
    }
    store.close().await;
    println!("{ROUNDS} rounds, each: raw appends, one caller, {CALLERS} callers, in this order\n");
    println!("| what | p50 | p99 | per second (median round) |");
    println!("|---|---|---|---|");
    let row = |what: &str, times: &mut Vec<Duration>, rates: &mut Vec<f64>| {
        times.sort();
        rates.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let time = times.get(times.len() * percent / 100);
            time.map_or("".to_owned(), |t| format!("{:.2} ms", t.as_secs_f64() * 1e3))
        };
        println!("| {what} | {} | {} | {:.0} |", at(50), at(99), rates[rates.len() / 2]);
        (times.get(times.len() / 2).copied(), rates[rates.len() / 2])
    };
    let (raw_p50, _) = row("4 KiB append + fdatasync", &mut raw, &mut raw_rates);
    let (one_p50, one_rate) = row("durable create, 1 caller", &mut one, &mut one_rates);
    let (_, many_rate) = row(&format!("durable create, {CALLERS} callers"), &mut vec![], &mut rates);
    if let (Some(raw), Some(one)) = (raw_p50, one_p50) {
        println!("\none caller: {:.1} x the raw append at p50", one.as_secs_f64() / raw.as_secs_f64());
    }
    println!("{CALLERS} callers: {:.1} x the rate of one\n", many_rate / one_rate);
}

/// Opening with many finished jobs and some live ones: after an orderly end, and as a crash leaves it.
async fn opens(dir: &Path) {
    let store = Store::open(dir).expect("a store");
    let names: Vec<String> =
        (0..FINISHED).map(|n| format!("finished-job-with-a-name-of-usual-length-{n}")).collect();
    for some in names.chunks(1000) {
        join_all(some.iter().map(|name| create(&store, finished(job(name))))).await;
    }
    join_all((0..64).map(|n| create(&store, job(&format!("live-{n}"))))).await;
    let crashed = dir.join("crashed");
    fs::create_dir(&crashed).expect("a directory");
    for file in ["loads.sqlite3", "loads.sqlite3-wal"] {
        fs::copy(dir.join(file), crashed.join(file)).expect("a copy");
    }
    store.close().await;
    println!("| open with {FINISHED} finished and 64 live jobs | median of 5 |");
    println!("|---|---|");
    for (what, dir) in
        [("after an orderly end", dir), ("after a crash (first open folds the log in)", &crashed)]
    {
        let mut times = vec![];
        for _ in 0..5 {
            let begin = Instant::now();
            let store = Store::open(dir).expect("a store");
            let live = store.live().await.expect("live jobs");
            times.push(begin.elapsed());
            assert_eq!(live.len(), 64);
            store.close().await;
        }
        times.sort();
        println!("| {what} | {:.0} ms (first or worst: {:.0} ms) |", ms(times[2]), ms(times[4]));
    }
    let store = Store::open(dir).expect("a store");
    let begin = Instant::now();
    assert_eq!(store.scrub().await, Ok(vec![]));
    let size = fs::metadata(dir.join("loads.sqlite3")).map_or(0, |m| m.len()) >> 20;
    println!("\nscrub of all of it ({size} MiB): {:.0} ms", ms(begin.elapsed()));
    store.close().await;
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn create(store: &Store, job: Job) {
    assert_eq!(store.create(job, usize::MAX).await, Ok(Created::New));
}

fn job(name: &str) -> Job {
    let id = LoadId::try_from(name.to_owned()).expect("a load id");
    let path = AlluxioPath::try_from(format!("/datasets/{name}")).expect("a path");
    Job::new(id, Uuid::now_v7(), Spec::new(path), Timestamp::now())
}

/// As large as a job usually is at its end.
fn finished(mut job: Job) -> Job {
    let now = Timestamp::now();
    for (from, to) in State::ALL.iter().zip(&State::ALL[1..6]) {
        let (from, to, message) = (*from, *to, "the listing found 1000 files".to_owned());
        job.transitions.push_back(Transition { from, to, reason: None, message, time: now, sequence: 7 });
    }
    job.state = State::Loaded;
    job.cluster = "1767225600000".to_owned();
    job.ended = Some(now);
    job
}
