//! Progress lines, the table, and docs/kills.md.

use crate::plan::Victims;
use crate::run::{End, Outcome, Who};
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, bail};
use preload_tests::facts;
use preload_tests::oracle::Verdict;
use preload_tests::stage::WORKERS;
use preload_tests::stats::{Spread, number};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Fewer prove too little for the document.
const WORTH_WRITING: usize = 100;
/// In the order of the table.
const STATES: [State; 4] = [State::Waiting, State::Listing, State::Loading, State::Verifying];

#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    wanted: usize,
    outcomes: Vec<Outcome>,
}

impl Report {
    pub(crate) fn begin(&mut self, seed: u64, wanted: usize) {
        (self.seed, self.wanted) = (seed, wanted);
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    pub(crate) fn has_runs(&self) -> bool {
        !self.outcomes.is_empty()
    }

    fn count(&self, condition: impl Fn(&End) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| condition(&outcome.end)).count()
    }

    /// Runs in which something was killed before the load had ended.
    pub(crate) fn killed(&self) -> usize {
        self.count(|end| !matches!(end, End::TooEarly(_)))
    }

    fn lies(&self) -> usize {
        let lie =
            |end: &End| matches!(end, End::Loaded(Verdict::False(_)) | End::TooEarly(Verdict::False(_)));
        self.count(lie)
    }

    /// Of the last run.
    pub(crate) fn line(&self) -> String {
        let Some(Outcome { plan, killed, end, seconds, .. }) = self.outcomes.last() else {
            return String::new();
        };
        let killed = killed.iter().map(|kill| {
            let who = match kill.who {
                Who::Worker(worker) => format!("worker {worker}"),
                Who::Sidecar => "sidecar".to_owned(),
            };
            format!("{who} in {} at {:.1} s", name(kill.state), kill.since_start.as_secs_f64())
        });
        let killed: Vec<_> = killed.collect();
        let end = match end {
            End::Loaded(Verdict::True) => "LOADED".to_owned(),
            End::Loaded(Verdict::DiedMeanwhile) => {
                "LOADED; its worker died during the verification".to_owned()
            }
            End::TooEarly(Verdict::True) => "LOADED before".to_owned(),
            other => format!("{other:?}"),
        };
        format!(
            "{} of {} runs, {} false; {}: {}, {} copies, {}: {end} after {seconds:.1} s",
            self.killed(),
            self.wanted,
            self.lies(),
            plan.number,
            plan.engine_name(),
            plan.replicas,
            if killed.is_empty() { "nobody".to_owned() } else { killed.join(", ") },
        )
    }

    pub(crate) fn markdown(&self) -> String {
        let mut kinds: BTreeMap<(&str, Victims), Vec<&Outcome>> = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|outcome| !matches!(outcome.end, End::TooEarly(_))) {
            let kind = (outcome.plan.engine_name(), outcome.plan.victims());
            kinds.entry(kind).or_default().push(outcome);
        }
        let mut text = String::from(
            "| engine | killed | runs | first kill in WAITING | LISTING | LOADING | VERIFYING | LOADED | FAILED | stuck \
             | **false LOADED** | to LOADED, s, median | longest |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for ((engine, victims), outcomes) in &kinds {
            row(&mut text, engine, &victims.to_string(), outcomes);
        }
        let all: Vec<_> = kinds.into_values().flatten().collect();
        row(&mut text, "all", "", &all);
        let during = self.count(|end| *end == End::Loaded(Verdict::DiedMeanwhile));
        let _ = write!(
            text,
            "\n{} more loads were LOADED before anything was killed, and are not counted. In {during} of the runs \
             copies were missing after LOADED that were on a worker which was killed after the verification had begun.\n",
            self.count(|end| matches!(end, End::TooEarly(_)))
        );
        for outcome in &all {
            if !matches!(outcome.end, End::Loaded(Verdict::True | Verdict::DiedMeanwhile)) {
                let _ = write!(
                    text,
                    "\n- run {}: {}, {} copies, {} killed: {:?}",
                    outcome.plan.number,
                    outcome.plan.engine_name(),
                    outcome.plan.replicas,
                    outcome.plan.victims(),
                    outcome.end
                );
            }
        }
        text
    }

    /// Unless the run is a short one.
    pub(crate) fn write(&self) -> Result<()> {
        if self.killed() < WORTH_WRITING {
            return Ok(());
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kills.md");
        let text = format!(
            "# Loads that were killed\n\n\
             Written by `make kills`: loads on a real Alluxio with {WORKERS} workers, each with a worker, the sidecar, or \
             both killed with SIGKILL at a random moment before it was LOADED, and started again up to 4 s later. 200 to \
             400 files of 2 kB to 11 MB, blocks of up to 5 MiB, of which the larger ones take another RPC than the small, \
             one or two copies, a third of the loads with metadata that Alluxio had not seen.\n\n\
             Right when WatchLoad says LOADED, block files on the disks of the workers that live are counted, by a way \
             that shares no code with the sidecar, and compared with the data byte by byte. LOADED is false when a block \
             has too few copies there, unless they were on a worker that was killed after the last verification had \
             begun: LOADED speaks of an instant between that and now.\n\n{}\n\
             Again: `make kills KILLS={} SEED={}`; one run of it: `target/debug/preload-kills {} {} NUMBER`. A seed \
             repeats what is drawn, not how quick the machine is.\n\n<sub>{}</sub>\n",
            self.markdown(),
            self.wanted,
            self.seed,
            self.wanted,
            self.seed,
            facts::of(&std::env::temp_dir()).trim_end().replace('\n', " ")
        );
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// An error when a load lied, did not end, or too little was tried.
    pub(crate) fn verdict(&self) -> Result<()> {
        let stuck = self.count(|end| matches!(end, End::Stuck(_)));
        if self.lies() > 0 || stuck > 0 {
            bail!("{} times LOADED was false, {stuck} loads were stuck; seed {}", self.lies(), self.seed);
        }
        Ok(())
    }
}

fn row(text: &mut String, engine: &str, victims: &str, outcomes: &[&Outcome]) {
    let count = |condition: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| condition(o)).count();
    let states: Vec<_> = STATES
        .iter()
        .map(|state| {
            let first = |outcome: &Outcome| {
                let kill = outcome.killed.iter().min_by_key(|kill| kill.since_start);
                // QUEUED lasts for a moment.
                kill.is_some_and(|kill| match kill.state {
                    State::Unspecified | State::Queued => *state == State::Waiting,
                    other => other == *state,
                })
            };
            count(&first).to_string()
        })
        .collect();
    let loaded = |outcome: &Outcome| matches!(outcome.end, End::Loaded(_));
    let times = Spread::of(outcomes.iter().filter(|o| loaded(o)).map(|outcome| outcome.seconds));
    let _ = writeln!(
        text,
        "| {engine} | {victims} | {} | {} | {} | {} | {} | {} | {} | {} |",
        outcomes.len(),
        states.join(" | "),
        count(&loaded),
        count(&|outcome| matches!(outcome.end, End::Failed(_))),
        count(&|outcome| matches!(outcome.end, End::Stuck(_))),
        count(&|outcome| matches!(outcome.end, End::Loaded(Verdict::False(_)))),
        number(times.median),
        number(times.most)
    );
}

fn name(state: State) -> &'static str {
    match state {
        State::Unspecified => "QUEUED",
        other => other.as_str_name(),
    }
}
