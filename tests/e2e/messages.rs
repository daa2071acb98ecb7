//! docs/messages.md has every message of the programs, as the sources have it.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Where messages come from.
const SOURCES: [&str; 5] = ["sidecar/src", "controller/src", "cli/src", "proto", "alluxio/src"];
/// What introduces one, and what ends the call that it is in.
const MESSAGES: [(&str, &str); 3] =
    [("#[error(", ")]"), ("tracing::warn!(", ");"), ("tracing::error!(", ");")];
/// Shorter pieces tell nothing.
const SHORTEST: usize = 6;

#[test]
fn every_message_is_explained() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?;
    let document = fs::read_to_string(root.join("docs/messages.md")).context("read docs/messages.md")?;
    let document = document.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut messages, mut missing) = (0, Vec::new());
    for file in SOURCES.iter().flat_map(|folder| sources(&root.join(folder))) {
        let text = fs::read_to_string(&file)?;
        // Tests are at the end of a file.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for message in MESSAGES.iter().flat_map(|(begin, end)| literals(code, begin, end)) {
            let piece = longest_piece(&message);
            messages += 1;
            if piece.len() >= SHORTEST && !document.contains(piece) {
                missing.push(format!("{piece:?} of {}", file.display()));
            }
        }
    }
    ensure!(messages > 150, "only {messages} messages were found: they are looked for in the wrong way");
    ensure!(missing.is_empty(), "docs/messages.md lacks {missing:#?}");
    Ok(())
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// String literals between `begin` and `end`, without the breaks of their lines.
fn literals(code: &str, begin: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in code.split(begin).skip(1) {
        let call = call.split(end).next().unwrap_or_default();
        // Every second part is inside of quotes; no message has an escaped one.
        for literal in call.split('"').skip(1).step_by(2) {
            let lines = literal.split("\\\n").map(str::trim_start);
            found.push(lines.collect());
        }
    }
    found
}

/// Between two placeholders.
fn longest_piece(message: &str) -> &str {
    let pieces =
        message.split(['{', '}']).step_by(2).map(|piece| piece.trim_matches([' ', ';', ':', ',', '.']));
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default()
}

#[test]
fn a_message_is_what_is_between_its_names() {
    let code = "#[error(\"load {id} is {state:?}; \\\n        cancel it first\")]\ntracing::warn!(%error, \"trying again\");";
    assert_eq!(literals(code, "#[error(", ")]"), ["load {id} is {state:?}; cancel it first"]);
    assert_eq!(literals(code, "tracing::warn!(", ");"), ["trying again"]);
    assert_eq!(longest_piece("load {id} is {state:?}; cancel it first"), "cancel it first");
}
