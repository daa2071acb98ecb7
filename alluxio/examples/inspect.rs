//! Shows a running Alluxio as this client sees it, with the time of every call.
//!
//!     cargo run -p alluxio-client --example inspect -- HOST:PORT[,HOST:PORT] PATH [WORD=VALUE ...]
//!
//! Words: `job-masters=HOST:PORT[,...]` (default: the masters' hosts, port 20001), `metadata=never|once|always`
//! (default never), `user=NAME`, `replication-max=N` (sets it on PATH), `command=ID` (its child jobs), `cancel=ID`.

use alluxio_client::{Client, Config, Error, JobStatus, LoadMetadata};
use std::{collections::BTreeMap, env, error, future::Future, time::Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let mut words = env::args().skip(1);
    let (Some(masters), Some(path)) = (words.next(), words.next()) else {
        return Err("usage: inspect HOST:PORT[,HOST:PORT] PATH [WORD=VALUE ...]".into());
    };
    let mut config = Config { masters: addresses(&masters), ..Config::default() };
    config.job_masters = config.masters.iter().map(|master| job_master(master)).collect();
    let (mut metadata, mut actions) = (LoadMetadata::Never, Vec::new());
    for word in words {
        match word.split_once('=') {
            Some(("job-masters", value)) => config.job_masters = addresses(value),
            Some(("user", value)) => config.user = value.to_owned(),
            Some(("metadata", "never")) => metadata = LoadMetadata::Never,
            Some(("metadata", "once")) => metadata = LoadMetadata::Once,
            Some(("metadata", "always")) => metadata = LoadMetadata::Always,
            Some((name @ ("replication-max" | "command" | "cancel"), value)) => {
                actions.push((name.to_owned(), value.parse::<i64>()?));
            }
            _ => return Err(format!("unknown word {word:?}").into()),
        }
    }

    let client = Client::new(config);
    for (name, value) in actions {
        match name.as_str() {
            "replication-max" => {
                timed(&name, client.set_replication_max(&path, value.try_into()?)).await;
            }
            "command" => show("command_jobs", client.command_jobs(value)).await,
            _ => {
                timed(&name, client.cancel_job(value)).await;
            }
        }
    }
    show("master_info", client.master_info().map_one()).await;
    show("cluster_id", client.cluster_id().map_one()).await;
    show("status", client.status(&path).map_one()).await;
    for worker in timed("workers", client.workers()).await.unwrap_or_default() {
        println!("  {worker:?}");
        timed("ping_worker", client.ping_worker(&worker.address)).await;
        timed("ping_worker again", client.ping_worker(&worker.address)).await;
    }
    show("job_workers", client.job_workers()).await;
    jobs(&client).await;
    timed("list", listing(&client, &path, metadata)).await;
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn addresses(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn job_master(master: &str) -> String {
    format!("{}:20001", master.rsplit_once(':').map_or(master, |(host, _)| host))
}

/// A single answer as a list of one.
trait MapOne<T> {
    fn map_one(self) -> impl Future<Output = Result<Vec<T>, Error>>;
}

impl<T, F: Future<Output = Result<T, Error>>> MapOne<T> for F {
    async fn map_one(self) -> Result<Vec<T>, Error> {
        Ok(vec![self.await?])
    }
}

/// Runs a call, prints its time and its error with all causes.
async fn timed<T>(name: &str, call: impl Future<Output = Result<T, Error>>) -> Option<T> {
    let start = Instant::now();
    let result = call.await;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    match result {
        Ok(value) => {
            println!("{name}: {milliseconds:.1} ms");
            Some(value)
        }
        Err(error) => {
            println!("{name}: {milliseconds:.1} ms, {error} (transient: {})", error.is_transient());
            let mut cause = error::Error::source(&error);
            while let Some(error) = cause {
                println!("  because: {error}");
                cause = error.source();
            }
            None
        }
    }
}

/// The same, and prints up to ten of the answers.
async fn show<T: std::fmt::Debug>(name: &str, call: impl Future<Output = Result<Vec<T>, Error>>) {
    if let Some(values) = timed(name, call).await {
        values.iter().take(10).for_each(|value| println!("  {value:?}"));
        println!("  {} in all", values.len());
    }
}

async fn jobs(client: &Client) {
    let unfinished = [JobStatus::Created, JobStatus::Running];
    if let Some(ids) = timed("job_ids, unfinished", client.job_ids(&unfinished)).await {
        println!("  {} in all", ids.len());
    }
    let Some(jobs) = timed("jobs", client.jobs(&[])).await else { return };
    let mut kinds = BTreeMap::<_, usize>::new();
    for job in &jobs {
        *kinds.entry(format!("{} {:?}", job.name, job.status)).or_default() += 1;
    }
    println!("  {} in all: {kinds:?}", jobs.len());
    for job in jobs.iter().take(3) {
        println!("  {job:?}");
    }
}

/// How many blocks have how many copies.
async fn listing(client: &Client, path: &str, metadata: LoadMetadata) -> Result<(), Error> {
    let start = Instant::now();
    let mut files = client.list(path, metadata).await?;
    println!("  first answer after {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let (mut count, mut folders, mut bytes) = (0_u64, 0_u64, 0_u64);
    let mut blocks_by_copies = BTreeMap::<usize, u64>::new();
    while let Some(file) = files.next().await? {
        if count + folders < 3 {
            println!("  {file:?}");
        }
        if file.folder {
            folders += 1;
            continue;
        }
        count += 1;
        bytes += file.length;
        for block in &file.blocks {
            *blocks_by_copies.entry(block.workers.len()).or_default() += 1;
        }
    }
    println!("  {count} files, {folders} folders, {bytes} bytes, blocks by copies: {blocks_by_copies:?}");
    Ok(())
}
