//! `make torture`: clients call the real sidecar at random on a real three-worker Alluxio, while a nemesis kills,
//! stops, cuts, fills and moves what they run on; every answer is checked against the contract.
//!
//! Arguments: RUNS, SEED, and the number of one run to do that one alone. A seed repeats what is drawn, not how
//! quick the machine is. What went wrong is kept in target/torture; each session adds a line to docs/torture.tsv.
//!
//! Invariants: every loop ends; whatever happens, what was started is gone when this process is.

use alluxio_preload_api::v1::load::{Reason, State};
use anyhow::{Context, Result, bail, ensure};
use preload_tests::facts::said;
use preload_tests::oracle::Verdict;
use preload_tests::stage;
use preload_tests::torture::history::What;
use preload_tests::torture::plan::Plan;
use preload_tests::torture::{Outcome, Torture};
use preload_tests::{Sandbox, SmallDisk};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

const RUNS: u64 = 10;
const COLUMNS: &str =
    "date\tcommit\tseed\truns\tloads\tanswers\tfaults\tloaded\texcused\tfailed\tviolations\tminutes";

fn main() -> ExitCode {
    match SmallDisk::run(async |_: &Sandbox, disk| torture(disk).await) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sums over all runs.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    loads: usize,
    answers: usize,
    faults: usize,
    /// LOADED that was true on the disks.
    loaded: usize,
    /// LOADED whose missing copies were on a worker that had just died.
    excused: usize,
    failed: usize,
    violations: usize,
    /// How often each kind of fault struck.
    struck: BTreeMap<String, usize>,
}

async fn torture(disk: &SmallDisk) -> Result<()> {
    let arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let arguments: Vec<_> = arguments.collect::<Result<_, _>>().context("usage: [RUNS [SEED [ONE]]]")?;
    let runs = arguments.first().copied().unwrap_or(RUNS);
    let seed = arguments.get(1).copied().unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let one = arguments.get(2).copied();
    let (begun, commit) = (Instant::now(), commit());
    let mut sums = Sums::default();
    let result = tokio::select! {
        result = all(disk, seed, one.map_or(1..=runs, |one| one..=one), begun, &mut sums) => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if one.is_none() && sums.runs > 0 {
        add_to_document(&commit, seed, &sums, begun.elapsed().as_secs_f64() / 60.0)?;
    }
    result?;
    if sums.violations > 0 {
        bail!("{} violations in {} runs; see target/torture/{seed}", sums.violations, sums.runs);
    }
    Ok(())
}

async fn all(
    disk: &SmallDisk,
    seed: u64,
    numbers: std::ops::RangeInclusive<u64>,
    begun: Instant,
    sums: &mut Sums,
) -> Result<()> {
    let say = |what: &str| eprintln!("[{:>6.1} s] {what}", begun.elapsed().as_secs_f64());
    say(&format!("{} runs, seed {seed}: starting Alluxio", numbers.clone().count()));
    let cluster = stage::start_cluster().await?;
    let mut torture = Torture::set(&cluster, disk).await?;
    for number in numbers {
        let plan = Plan::draw(seed, number);
        let outcome = torture.run(plan.clone()).await;
        let outcome = outcome.with_context(|| format!("run {number} of seed {seed}, {plan:?}"))?;
        let events = &outcome.history.events;
        let (mut answers, mut faults) = (0, 0);
        for event in events {
            match &event.what {
                What::Fault(_, words) => {
                    faults += 1;
                    let kind = words.split(' ').next().unwrap_or_default().trim_end_matches(',');
                    *sums.struck.entry(kind.to_owned()).or_default() += 1;
                }
                What::Disk { verdict: Verdict::True, .. } => sums.loaded += 1,
                What::Disk { verdict: Verdict::DiedMeanwhile, .. } => sums.excused += 1,
                What::Disk { .. } | What::TwoCommands { .. } | What::Left(_) => {}
                _ => answers += 1,
            }
        }
        sums.runs += 1;
        sums.loads += outcome.ends.len();
        sums.answers += answers;
        sums.faults += faults;
        sums.failed += outcome.ends.iter().filter(|(state, _)| *state == State::Failed).count();
        sums.violations += outcome.violations.len();
        let mut ends: Vec<_> = outcome.ends.iter().map(|(state, reason)| shown(*state, *reason)).collect();
        ends.sort_unstable();
        say(&format!(
            "run {number}: {answers} answers, {faults} faults, {} in {:.0} s, {} violations",
            ends.join(" "),
            outcome.seconds,
            outcome.violations.len()
        ));
        if !outcome.violations.is_empty() {
            let file = keep(&outcome)?;
            for violation in outcome.violations.iter().take(5) {
                eprintln!("    {violation}");
            }
            eprintln!("    all of it is in {}", file.display());
        }
    }
    let struck: Vec<_> = sums.struck.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
    say(&format!("struck: {}", struck.join(", ")));
    drop(torture);
    cluster.stop()?;
    // Whoever never does anything breaks nothing.
    ensure!(sums.loaded > 0 && sums.faults > 0, "nothing was LOADED, or nothing struck");
    Ok(())
}

/// `FAILED(INCOMPLETE)`; why others ended is no question.
fn shown(state: State, reason: Reason) -> String {
    match state {
        State::Failed => format!("{}({})", state.as_str_name(), reason.as_str_name()),
        _ => state.as_str_name().to_owned(),
    }
}

/// Everything that is known of a run that went wrong.
fn keep(outcome: &Outcome) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find our own executable")?;
    let target = own.ancestors().nth(2).context("our executable is in no target folder")?;
    let folder = target.join(format!("torture/{}", outcome.plan.seed));
    fs::create_dir_all(&folder).context("make a folder for what went wrong")?;
    let mut text = format!("{:#?}\n\n", outcome.plan);
    for violation in &outcome.violations {
        writeln!(text, "{violation}")?;
    }
    text.push('\n');
    for event in &outcome.history.events {
        writeln!(text, "{event}")?;
    }
    write!(text, "\n{}\n", outcome.log)?;
    let file = folder.join(format!("run-{}.txt", outcome.plan.number));
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

fn add_to_document(commit: &str, seed: u64, sums: &Sums, minutes: f64) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/torture.tsv");
    let new = !file.exists();
    let mut document =
        OpenOptions::new().create(true).append(true).open(&file).context("open the document")?;
    if new {
        writeln!(document, "{COLUMNS}")?;
    }
    let Sums { runs, loads, answers, faults, loaded, excused, failed, violations, .. } = sums;
    writeln!(
        document,
        "{}\t{commit}\t{seed}\t{runs}\t{loads}\t{answers}\t{faults}\t{loaded}\t{excused}\t{failed}\t{violations}\t\
         {minutes:.0}",
        said("date", &["-u", "+%Y-%m-%d"]),
    )
    .context("write the document")
}

/// Of the sources, as they are now.
fn commit() -> String {
    let mut commit = said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always"]);
    // What a session adds there changes nothing of what runs.
    let besides_docs = ["-C", env!("CARGO_MANIFEST_DIR"), "status", "--porcelain", "--", "..", ":!../docs"];
    if !said("git", &besides_docs).is_empty() {
        commit.push_str("-dirty");
    }
    commit
}

async fn interrupted() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}
