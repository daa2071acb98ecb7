//! The contract of `preload.v1`, as rules over a [`History`]. Pure: it knows neither sidecar nor Alluxio, only what
//! was asked and answered.
//!
//! A rule speaks of order only where one thing had ended before the other began: calls that overlap may have been
//! answered in either order.

mod answers;
mod ends;
mod order;

use super::history::{History, Seen};
use std::collections::BTreeMap;
use std::fmt;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule, as docs/reliability.md has it.
    pub rule: &'static str,
    pub words: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.words)
    }
}

/// A rule, and its name.
type Rule = (&'static str, fn(&Evidence<'_>) -> Vec<String>);

const RULES: [Rule; 12] = [
    ("taken", answers::taken),
    ("kept", answers::kept),
    ("one load per id", answers::one_load),
    ("as wished", answers::as_wished),
    ("known refusals", answers::known_refusals),
    ("only forward", order::only_forward),
    ("one course", order::one_course),
    ("legal course", order::legal_course),
    ("streams", ends::streams),
    ("ended", ends::ended),
    ("loaded means loaded", ends::loaded),
    ("nothing left", ends::nothing_left),
];

/// Every promise that was broken.
pub fn check(history: &History) -> Vec<Violation> {
    let evidence = Evidence::of(history);
    let broken = RULES
        .iter()
        .flat_map(|(rule, broken)| broken(&evidence).into_iter().map(|words| Violation { rule, words }));
    broken.collect()
}

/// A history, sorted for the rules.
struct Evidence<'a> {
    history: &'a History,
    /// By id, in the order in which the answers came.
    loads: BTreeMap<&'a str, Vec<Seen<'a>>>,
}

impl<'a> Evidence<'a> {
    fn of(history: &'a History) -> Self {
        let mut loads = BTreeMap::<_, Vec<Seen<'a>>>::new();
        for seen in history.events.iter().flat_map(super::history::Event::seen) {
            loads.entry(seen.load.id.as_str()).or_default().push(seen);
        }
        for seen in loads.values_mut() {
            seen.sort_by_key(|seen| seen.ended);
        }
        Self { history, loads }
    }
}

#[cfg(test)]
mod tests;
