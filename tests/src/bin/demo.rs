//! `make demo`: the main job on a real Alluxio with two workers, from cold data to "nothing is left running".

use anyhow::{Context, Result, bail};
use preload_tests::{Cluster, Data, MIB, Options, Role, Setup, leash, processes};
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Lines of `fs ls` that are shown: the rest is counted.
const SHOWN_LINES: usize = 12;

#[tokio::main]
async fn main() -> ExitCode {
    let page = Page { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    let started = Instant::now();
    // The cluster's directory, as soon as there is one: nothing that names it may be left at the end.
    let mut directory = None;
    let result = tokio::select! {
        result = demo(&page, &mut directory) => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    // Whatever happened, what was started has been dropped by now, and dropping waits for the end.
    let left = nothing_left(&page, directory);
    match result.and(left) {
        Ok(()) => {
            page.say(&format!("done in {:.0} s", started.elapsed().as_secs_f64()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(page: &Page, directory: &mut Option<PathBuf>) -> Result<()> {
    page.title("A real Alluxio: a master, a job master, two workers, on loopback");
    let started = Instant::now();
    // One file at a time for each job worker: as slow as a network, so that there is something to watch.
    let properties = vec![("alluxio.job.worker.threadpool.size".to_owned(), "1".to_owned())];
    let options = Options { worker_quota: 1024 * MIB, properties, ..Options::default() };
    page.say(&format!("starting six JVMs of Alluxio {} ...", options.version));
    let cluster = Cluster::start(options).await?;
    *directory = Some(cluster.sandbox().directory().to_owned());
    page.say(&format!("ready after {:.1} s: {}", started.elapsed().as_secs_f64(), cluster.master_address()));

    page.title("Sample data in its under file system");
    let data = Data::create(cluster.ufs().join("training"), "/training".to_owned())?;
    let (files, bytes) = sample(&data)?;
    let cached = cluster.oracle().bytes_on_disk()?;
    page.say(&format!("{files} files, {} in {}", mib(bytes), data.ufs().display()));
    page.say(&format!("on the workers' disks: {}", mib(cached)));

    page.title("The sidecar beside the master");
    let sidecar = Setup::new(&cluster).quiet().start().await?;
    page.say(&format!("preload-sidecar serves preload.v1 on {}", sidecar.address()));

    page.title("The load");
    let arguments = ["start", data.path(), "--id", "demo", "--replicas", "1", "--watch"];
    page.command(&format!("preloadctl --address {} {}", sidecar.address(), arguments.join(" ")));
    let mut preloadctl = Command::new(leash::sibling("preloadctl")?);
    preloadctl.args(["--address", sidecar.address()]).args(arguments).kill_on_drop(true);
    let status = preloadctl.status().await.context("run preloadctl")?;
    if !status.success() {
        bail!("preloadctl ended with {status}; {}", sidecar.log_end());
    }

    page.title("What Alluxio says");
    page.command("alluxio fs ls -R /training");
    let output = cluster.alluxio(&["fs", "ls", "-R", data.path()]).await?.success()?;
    for line in output.lines().take(SHOWN_LINES) {
        println!("  {line}");
    }
    let whole = output.lines().filter(|line| line.contains(" 100% /")).count();
    let more = output.lines().count().saturating_sub(SHOWN_LINES);
    page.say(&format!("... and {more} lines more; {whole} of {files} files at 100%"));
    if whole != files {
        bail!("{} files are not at 100%", files - whole);
    }

    page.title("What the workers' disks say");
    let tree = cluster.oracle().tree(data.path()).await?;
    let copies = tree.copies()?;
    for worker in 1..=cluster.options().workers {
        let blocks = copies.blocks().filter(|block| block.workers.contains(&worker));
        let (count, bytes) = blocks.fold((0, 0), |(count, bytes), block| (count + 1, bytes + block.length));
        let folder = cluster.worker_directory(Role::Worker(worker));
        page.say(&format!("worker {worker}: {count} blocks, {}, in {}", mib(bytes), folder.display()));
    }
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    page.say("every block is there, and equals the under file system byte for byte");

    page.title("The end");
    drop(sidecar);
    cluster.stop()
}

/// Files of the kind that training reads: many small ones in nested directories, and a few large ones.
fn sample(data: &Data) -> Result<(usize, u64)> {
    const SMALL: u64 = 64 * 1024;
    const LARGE: u64 = 96 * MIB;
    let mut files = 0;
    for (split, classes, count) in [("train", 5, 100), ("validation", 5, 20)] {
        for class in 0..classes {
            data.below(&format!("images/{split}/class-{class}"))?.files(count, SMALL)?;
            files += count;
        }
    }
    let small = files as u64;
    for name in ["model/base.safetensors", "model/adapter.safetensors", "text/part-0.parquet"] {
        data.file(name, LARGE)?;
        files += 1;
    }
    Ok((files, small * SMALL + 3 * LARGE))
}

fn nothing_left(page: &Page, directory: Option<PathBuf>) -> Result<()> {
    let Some(directory) = directory else { return Ok(()) };
    let left = processes::naming(&directory);
    if !left.is_empty() || fs::exists(&directory)? {
        bail!("something is left: {} {left:?}", directory.display());
    }
    page.say(&format!("nothing is left running, and {} is gone", directory.display()));
    Ok(())
}

async fn interrupted() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

/// Standard output, in colour on a terminal.
#[derive(Debug)]
struct Page {
    colour: bool,
}

impl Page {
    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1;36", text));
    }

    fn command(&self, text: &str) {
        println!("{}", self.paint("1", &format!("  $ {text}")));
    }

    fn say(&self, text: &str) {
        println!("  {text}");
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
