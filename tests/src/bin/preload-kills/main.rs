//! `make kills`: many loads on a real three-worker Alluxio, each with a worker, the sidecar, or both killed with
//! SIGKILL at a random moment. When a load says LOADED, every block must be there.
//!
//! Arguments: RUNS, SEED, and the number of one run to do that one alone. A seed repeats what is drawn, not how
//! quick the machine is. What went wrong is kept in target/kills; a long run writes docs/kills.md.
//!
//! Invariants: every loop ends; whatever happens, what was started is gone when this process is.

mod follow;
mod judge;
mod plan;
mod report;
mod run;

use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, bail};
use plan::Plan;
use preload_tests::oracle::Verdict;
use preload_tests::stage::{self, Stage};
use preload_tests::{Setup, Sidecar};
use report::Report;
use run::{End, Outcome};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const RUNS: usize = 200;
/// A load that ended before anything was killed is no run; so many in all are tried.
const TRIES: usize = 2;
/// Runs between two cleanings of the cache.
const BATCH: usize = 10;
/// Loads of each kind without kills, to see how long they take.
const QUIET: usize = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut report = Report::default();
    let result = tokio::select! {
        result = kills(&mut report) => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if report.has_runs() {
        println!("{}", report.markdown());
    }
    let result = result.and_then(|()| report.write()).and_then(|()| report.verdict());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kills: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn kills(report: &mut Report) -> Result<()> {
    let arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let arguments: Vec<_> = arguments.collect::<Result<_, _>>().context("usage: [RUNS [SEED [ONE]]]")?;
    let runs = arguments.first().map_or(Ok(RUNS), |runs| usize::try_from(*runs))?;
    let seed = arguments.get(1).copied().unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let one = arguments.get(2).map(|one| usize::try_from(*one)).transpose()?;
    report.begin(seed, runs);
    let begun = Instant::now();
    let say = |what: &str| eprintln!("[{:>6.1} s] {what}", begun.elapsed().as_secs_f64());
    say(&format!("{runs} runs, seed {seed}: starting Alluxio"));
    let cluster = stage::start_cluster().await?;
    let mut stage = Stage::set(&cluster, BATCH)?;
    let mut sidecar = Setup::new(&cluster).quiet().start().await?;
    let usual = usual(&mut stage, &mut sidecar, &say).await?;

    let numbers = one.map_or(1..=runs * TRIES, |one| one..=one);
    for number in numbers {
        if report.killed() >= runs {
            break;
        }
        let plan = Plan::draw(seed, number);
        let outcome = run::run(&mut stage, &mut sidecar, &plan, usual.of(&plan)).await;
        let outcome = outcome.with_context(|| format!("run {number} of seed {seed}, {plan:?}"))?;
        keep(seed, &outcome)?;
        report.add(outcome);
        say(&report.line());
    }
    drop(sidecar);
    cluster.stop()
}

/// By engine and copies.
#[derive(Debug, Default)]
struct Usual(Vec<(Engine, u32, Duration)>);

impl Usual {
    /// AUTO runs distributedLoad here.
    fn of(&self, plan: &Plan) -> Duration {
        let engine = if plan.engine == Engine::Native { Engine::Native } else { Engine::DistributedLoad };
        let found = self.0.iter().find(|(e, replicas, _)| (*e, *replicas) == (engine, plan.replicas));
        found.map_or(Duration::ZERO, |(.., usual)| *usual)
    }
}

async fn usual(stage: &mut Stage<'_>, sidecar: &mut Sidecar<'_>, say: &impl Fn(&str)) -> Result<Usual> {
    let mut usual = Usual::default();
    for engine in [Engine::Native, Engine::DistributedLoad] {
        for replicas in [1, 2] {
            let mut last = Duration::ZERO;
            // The first finds cold machines: the last counts.
            for _ in 0..QUIET {
                let plan = Plan::quiet(engine, replicas);
                let outcome = run::run(stage, sidecar, &plan, Duration::ZERO).await?;
                let whole = End::TooEarly(Verdict::True);
                if outcome.end != whole {
                    bail!("a load without kills: {}", outcome.details);
                }
                last = Duration::from_secs_f64(outcome.seconds);
            }
            say(&format!("without kills: {engine:?}, {replicas} copies: {:.1} s", last.as_secs_f64()));
            usual.0.push((engine, replicas, last));
        }
    }
    Ok(usual)
}

/// Everything that is known of a run that went wrong.
fn keep(seed: u64, outcome: &Outcome) -> Result<()> {
    if !outcome.end.is_wrong() && !matches!(outcome.end, End::Failed(_)) {
        return Ok(());
    }
    let own = std::env::current_exe().context("find our own executable")?;
    let target = own.ancestors().nth(2).context("our executable is in no target folder")?;
    let folder: PathBuf = target.join(format!("kills/{seed}"));
    fs::create_dir_all(&folder).context("make a folder for what went wrong")?;
    let file = folder.join(format!("run-{}.txt", outcome.plan.number));
    fs::write(&file, &outcome.details).with_context(|| format!("write {}", file.display()))?;
    eprintln!("run {}: {:?}; kept in {}", outcome.plan.number, outcome.end, file.display());
    Ok(())
}

async fn interrupted() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}
