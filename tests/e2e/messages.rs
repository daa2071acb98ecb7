//! docs/messages.md has every message of the programs, as the sources have it, and no other.

mod literals;
mod page;
mod tokens;

use anyhow::{Context, Result, ensure};
use literals::Literal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where messages come from.
const SOURCES: [&str; 5] = ["sidecar/src", "controller/src", "cli/src", "proto", "alluxio/src"];
/// All that these say is a message, but words of fewer letters that are put into others.
const SPEAKERS: [&str; 3] = ["#[error]", "warn!", "error!"];
const LETTERS: usize = 6;
/// Elsewhere a literal of so many words is a message, whatever it is handed to.
const WORDS: usize = 2;
/// But not to these: logs of what goes well or tells details, helps of metrics, comparisons with words of others.
const SILENT: [&str; 9] = [
    "info!",
    "debug!",
    "trace!",
    "register",
    "register_with_unit",
    "starts_with",
    "ends_with",
    "strip_prefix",
    "contains",
];
/// Nor those that begin so, each group for its reason.
const EXCEPTIONS: [(&str, &[&str]); 10] = [
    (
        "queries of the store",
        &[
            "SELECT ",
            "UPDATE ",
            "DELETE ",
            "CREATE ",
            "ordinal NOT IN",
            "ordinal, uid",
            "uid, generation",
            "uid, next",
        ],
    ),
    (
        "words of others",
        &[
            ", failed file count",
            ",Failed count",
            "Fail to finish cache",
            "is not available, because it",
            "transport error",
        ],
    ),
    ("said when all went well", &["installed {}"]),
    (
        "parts of a command",
        &["alluxio fs distributedLoad", "-Xms32m", "preloadctl start", "--engine ", "/proc/"],
    ),
    ("said to programs", &["GET ", "role in (", "ok: leading", "ok: standby"]),
    ("rules, beside their messages", &["self ", "!self"]),
    ("figures of a load", &["at least ", "at most {}/s", "{size} at {} replicas"]),
    ("names", &["stateful sets", "Preload Progress"]),
    ("seen in a log at debug alone", &["there are no credentials yet"]),
    (
        "helps, and what is cut off from them",
        &["Exit codes:", "Time of one reconciliation", "Writes that met", "For more"],
    ),
];

#[test]
fn every_message_is_explained() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?;
    let document = fs::read_to_string(root.join("docs/messages.md")).context("read docs/messages.md")?;
    let rows = page::rows(&document);
    let (mut messages, mut missing) = (0, Vec::new());
    let (mut said, mut excepted) = (BTreeSet::new(), BTreeSet::new());
    for file in SOURCES.iter().flat_map(|folder| sources(&root.join(folder))) {
        let found = literals::of(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
        for literal in found.iter().filter(|literal| is_message(literal)) {
            if let Some(exception) = exceptions().find(|begin| literal.text.trim_start().starts_with(begin)) {
                excepted.insert(exception);
                continue;
            }
            messages += 1;
            let having = page::having(&rows, &literal.text);
            if having.is_empty() {
                missing.push(format!("{:?} of {}", literal.text, file.strip_prefix(root)?.display()));
            }
            said.extend(having);
        }
    }
    let unsaid: Vec<_> = rows.iter().filter(|row| !said.contains(row)).collect();
    let unused: Vec<_> = exceptions().filter(|begin| !excepted.contains(begin)).collect();
    ensure!(messages > 400, "only {messages} messages were found: they are looked for in the wrong way");
    ensure!(missing.is_empty(), "no row of docs/messages.md has {missing:#?}");
    ensure!(unsaid.is_empty(), "docs/messages.md has what no program says: {unsaid:#?}");
    ensure!(unused.is_empty(), "exceptions that nothing needs: {unused:#?}");
    Ok(())
}

fn exceptions() -> impl Iterator<Item = &'static str> {
    EXCEPTIONS.iter().flat_map(|(_, beginnings)| beginnings.iter().copied())
}

/// All Rust files below a folder, but those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = entries.filter(|path| path.file_stem().is_some_and(|name| name != "tests"));
    let files = ours.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn is_message(literal: &Literal) -> bool {
    let pieces = page::pieces(&literal.text);
    if SPEAKERS.contains(&literal.of.as_str()) {
        return pieces.iter().any(|piece| piece.len() >= LETTERS);
    }
    let is_word = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        word.contains(char::is_lowercase) && word.chars().all(|c| c.is_alphabetic() || "-'".contains(c))
    };
    let words = pieces.iter().flat_map(|piece| piece.split(' ')).filter(|word| is_word(word));
    words.count() >= WORDS && !SILENT.contains(&literal.of.as_str())
}
