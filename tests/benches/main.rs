//! What sidecar and controller cost, measured on the release binaries:
//! `cargo bench -p preload-tests --bench preload`.
//!
//! Sections are picked by name; `--quick` proves in a minute that everything works, with sizes that prove
//! nothing else. A full run writes what it found into docs/benchmarks.md: the sections that ran, the others
//! stay as they are.
//!
//! Invariants: what is compared runs in turns, in one run and on one disk; nothing fails because it is slow.

mod calls;
mod controller;
mod document;
mod durable;
mod exec;
mod machine;
mod native;
mod overhead;
mod plot;
mod soak;
mod startup;
mod verify;
mod watchers;

use anyhow::{Context, Result, bail};
use document::Section;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use preload_tests::{Cluster, MIB, Options};
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::OnceCell;

/// In the order of the document.
const SECTIONS: [&str; 16] = [
    "durable",
    "calls",
    "watchers",
    "startup",
    "verify",
    "overhead",
    "native-small",
    "native-cold",
    "native-middle",
    "native-big",
    "native-cached",
    "native-cancel",
    "native-memory",
    "exec",
    "controller",
    // An hour, and so only by its name.
    SOAK,
];

const SOAK: &str = "soak";

/// What the sections share.
#[derive(Debug)]
struct Bench {
    quick: bool,
    cluster: OnceCell<Cluster>,
    scene: OnceCell<native::Scene>,
    begun: Instant,
}

impl Bench {
    /// `full`, or `quick` in a quick run.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The progress line.
    fn say(&self, what: &str) {
        eprintln!("[{:>6.1} s] {what}", self.begun.elapsed().as_secs_f64());
    }

    /// A two-worker Alluxio, started when it is needed first.
    async fn cluster(&self) -> Result<&Cluster> {
        self.cluster
            .get_or_try_init(async || {
                self.say("starting Alluxio");
                Cluster::start(Options { worker_quota: 2048 * MIB, ..Options::default() }).await
            })
            .await
    }

    /// Another one, for the sections that compare engines.
    async fn scene(&self) -> Result<&native::Scene> {
        self.scene.get_or_try_init(|| native::Scene::start(self)).await
    }

    async fn run(&self, name: &str) -> Result<Section> {
        match name {
            "durable" => durable::run(self).await,
            "calls" => calls::run(self).await,
            "watchers" => watchers::run(self).await,
            "startup" => startup::run(self).await,
            "verify" => verify::run(self).await,
            "overhead" => overhead::run(self).await,
            "native-small" => native::small(self).await,
            "native-cold" => native::cold(self).await,
            "native-middle" => native::middle(self).await,
            "native-big" => native::big(self).await,
            "native-cached" => native::cached(self).await,
            "native-cancel" => native::cancelled(self).await,
            "native-memory" => native::memory(self).await,
            "exec" => exec::run(self).await,
            SOAK => soak::run(self).await,
            _ => controller::run(self).await,
        }
    }
}

/// One thread drives all callers: what is left of the machine is the sidecar's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<()> {
    // Cargo adds `--bench`.
    let mut names: Vec<String> = std::env::args().skip(1).filter(|name| name != "--bench").collect();
    let quick = names.iter().any(|name| name == "--quick");
    names.retain(|name| name != "--quick");
    // `native` is all that begin so.
    let picks = |name: &str, section: &str| {
        section.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if let Some(name) = names.iter().find(|name| !SECTIONS.iter().any(|section| picks(name, section))) {
        bail!("there is no section {name:?}; there are {}, and --quick", SECTIONS.join(", "));
    }
    preload_tests::leash::sibling("preload-sidecar")
        .context("build what is measured: cargo build --release --workspace")?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")?;

    let bench = Bench { quick, cluster: OnceCell::new(), scene: OnceCell::new(), begun: Instant::now() };
    let mut sections = Vec::new();
    let mut failed = Vec::new();
    let chosen = |section: &str| {
        (names.is_empty() && section != SOAK) || names.iter().any(|name| picks(name, section))
    };
    for name in SECTIONS.iter().filter(|name| chosen(name)) {
        bench.say(name);
        match bench.run(name).await {
            Ok(section) => {
                println!("\n{}", section.markdown());
                sections.push(section);
            }
            // The others are worth having.
            Err(error) => {
                eprintln!("bench: section {name}: {error:#}");
                failed.push(*name);
            }
        }
    }
    bench.say("done");
    if !quick {
        document::write(&sections, &SECTIONS)?;
    }
    if !failed.is_empty() {
        bail!("sections that failed: {}", failed.join(", "));
    }
    Ok(())
}
