//! What was asked, answered, seen and done, on one clock. Plain data.

use super::plan::Fault;
use crate::oracle::Verdict;
use alluxio_preload_api::v1::{Load, StartLoadRequest};
use std::fmt;
use std::time::Duration;
use tonic::Code;

/// After which a sidecar has its state directory again, once that can be written.
const STORE_OPENED_AGAIN: Duration = Duration::from_secs(10);

/// Of one run, in the order in which the answers came.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub events: Vec<Event>,
    /// When everything had been mended, and every load had had the time to end. What begins later must succeed.
    pub settled: Option<Duration>,
}

impl History {
    /// Full or read-only: whether that may be what an answer is about. The store is opened again within seconds.
    pub(super) fn disk_was_useless(&self, event: &Event) -> bool {
        let fault =
            |fault: &&Event| matches!(&fault.what, What::Fault(Fault::ReadOnlyDisk | Fault::FillDisk, _));
        self.events
            .iter()
            .filter(fault)
            .any(|fault| fault.begun <= event.ended && event.begun <= fault.ended + STORE_OPENED_AGAIN)
    }
}

/// Times are since the beginning of the run.
#[derive(Debug, Clone)]
pub struct Event {
    /// It was not asked before.
    pub begun: Duration,
    /// The answer was there.
    pub ended: Duration,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Start {
        request: StartLoadRequest,
        answer: Answer<Box<Load>>,
    },
    Get {
        id: String,
        answer: Answer<Box<Load>>,
    },
    Cancel {
        id: String,
        answer: Answer<Box<Load>>,
    },
    Verify {
        id: String,
        answer: Answer<Box<Load>>,
    },
    /// All pages.
    List {
        answer: Answer<Vec<Load>>,
    },
    /// A message of WatchLoad. It was not asked before the stream was opened.
    Told {
        stream: u64,
        load: Box<Load>,
    },
    /// `Ok` is the end that the contract promises.
    StreamEnded {
        stream: u64,
        id: String,
        follow: bool,
        answer: Answer<()>,
    },
    /// The workers' disks, looked at when this load was first heard to be LOADED.
    Disk {
        id: String,
        verdict: Verdict,
    },
    /// More than one command loads this path at one instant.
    TwoCommands {
        path: String,
        commands: Vec<String>,
    },
    /// It should not be there at the end.
    Left(String),
    /// The nemesis did this.
    Fault(Fault, String),
}

pub type Answer<T> = Result<T, Refusal>;

/// A status other than OK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// A load as somebody saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) begun: Duration,
    pub(super) ended: Duration,
    pub(super) load: &'a Load,
}

impl Event {
    /// Every load in it.
    pub(super) fn seen(&self) -> Vec<Seen<'_>> {
        let seen = |load| Seen { begun: self.begun, ended: self.ended, load };
        match &self.what {
            What::Start { answer: Ok(load), .. }
            | What::Get { answer: Ok(load), .. }
            | What::Cancel { answer: Ok(load), .. }
            | What::Verify { answer: Ok(load), .. }
            | What::Told { load, .. } => vec![seen(load)],
            What::List { answer: Ok(loads) } => loads.iter().map(seen).collect(),
            _ => Vec::new(),
        }
    }

    /// Loads that somebody knew when it ended.
    pub(super) fn ids(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.load.id.clone()).collect()
    }

    /// The refusal in it.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match &self.what {
            What::Start { answer: Err(refusal), .. }
            | What::Get { answer: Err(refusal), .. }
            | What::Cancel { answer: Err(refusal), .. }
            | What::Verify { answer: Err(refusal), .. }
            | What::List { answer: Err(refusal) }
            | What::StreamEnded { answer: Err(refusal), .. } => Some(refusal),
            _ => None,
        }
    }
}

/// One line, for people who look for the reason of a violation.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} {:>9.3}  ", self.begun.as_secs_f64(), self.ended.as_secs_f64())?;
        match &self.what {
            What::Start { request, answer } => write!(f, "StartLoad {}: {}", request.load_id, said(answer)),
            What::Get { id, answer } => write!(f, "GetLoad {id}: {}", said(answer)),
            What::Cancel { id, answer } => write!(f, "CancelLoad {id}: {}", said(answer)),
            What::Verify { id, answer } => write!(f, "VerifyLoad {id}: {}", said(answer)),
            What::List { answer: Ok(loads) } => write!(f, "ListLoads: {} loads", loads.len()),
            What::List { answer: Err(refusal) } => write!(f, "ListLoads: {refusal}"),
            What::Told { stream, load } => write!(f, "watch {stream}: {}", shown(load)),
            What::StreamEnded { stream, id, answer, .. } => match answer {
                Ok(()) => write!(f, "watch {stream} of {id} ended"),
                Err(refusal) => write!(f, "watch {stream} of {id} broke: {refusal}"),
            },
            What::Disk { id, verdict } => write!(f, "disks at LOADED of {id}: {verdict:?}"),
            What::TwoCommands { path, commands } => write!(f, "commands for {path}: {commands:?}"),
            What::Left(what) => write!(f, "left: {what}"),
            What::Fault(_, what) => write!(f, "=== {what}"),
        }
    }
}

fn said(answer: &Answer<Box<Load>>) -> String {
    match answer {
        Ok(load) => shown(load),
        Err(refusal) => refusal.to_string(),
    }
}

/// What tells two states of a load apart.
pub(super) fn shown(load: &Load) -> String {
    let cached = load.progress.as_ref().map_or(0, |progress| progress.files_cached);
    format!(
        "{} #{} {:?} {:?} attempt {} cached {cached} {:?}",
        load.id,
        load.sequence,
        load.state(),
        load.reason(),
        load.attempt,
        load.message
    )
}
