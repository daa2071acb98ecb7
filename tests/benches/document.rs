//! docs/benchmarks.md and its plots.
//!
//! Each section stands between two marks, so that one can be measured again without the others.

use anyhow::{Context, Result};
use preload_tests::facts;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What one section found.
#[derive(Debug)]
pub(crate) struct Section {
    name: &'static str,
    text: String,
    plots: Vec<(String, String)>,
}

impl Section {
    pub(crate) fn new(name: &'static str, title: &str) -> Self {
        Self { name, text: format!("## {title}\n"), plots: Vec::new() }
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = write!(self.text, "\n{text}\n");
    }

    pub(crate) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let _ = write!(self.text, "\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }

    /// Rows: what is wanted, the figure, and whether that is enough.
    pub(crate) fn bars(&mut self, bars: &[(&str, String, bool)]) {
        let rows: Vec<_> = bars
            .iter()
            .map(|(bar, figure, met)| {
                [(*bar).to_owned(), figure.clone(), if *met { "met" } else { "**missed**" }.to_owned()]
            })
            .collect();
        self.table(["bar", "measured", ""], &rows);
    }

    pub(crate) fn plot(&mut self, title: &str, svg: String) {
        let file = format!("benchmarks-{}.svg", self.name);
        let _ = write!(self.text, "\n![{title}]({file})\n");
        self.plots.push((file, svg));
    }

    pub(crate) fn markdown(&self) -> &str {
        &self.text
    }

    fn marks(name: &str) -> (String, String) {
        (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"))
    }
}

/// Replaces `sections` in the document; `order`: of all that there can be.
pub(crate) fn write(sections: &[Section], order: &[&str]) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::create_dir_all(&directory).context("make docs")?;
    let path: PathBuf = directory.join("benchmarks.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let facts = facts::of(&std::env::temp_dir());
    let mut text = String::from(
        "# Benchmarks\n\n\
         Measured by `make bench` on the release binary, over loopback; written by the program itself.\n\
         Figures are medians with the range in brackets. What is compared ran in turns, in one run, on one\n\
         machine, together with the clients that measured it and, where one takes part, a whole Alluxio.\n\
         MB are 1,000,000 bytes; memory is what is resident, the binary included.\n\n\
         One section: `cargo bench -p preload-tests --bench preload -- SECTION`, after\n\
         `cargo build --release --workspace`; the sections are ",
    );
    let _ = writeln!(text, "{}\n(`native`: all that begin so).", order.join(", "));
    for name in order {
        let (begin, end) = Section::marks(name);
        let body = match sections.iter().find(|section| section.name == *name) {
            Some(section) => {
                format!("{}\n<sub>{}</sub>\n", section.text, facts.trim_end().replace('\n', " "))
            }
            None => {
                let kept = old.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
                kept.map(|(body, _)| body.to_owned()).unwrap_or_default()
            }
        };
        if !body.is_empty() {
            let _ = write!(text, "\n{begin}{body}{end}");
        }
    }
    fs::write(&path, text).context("write docs/benchmarks.md")?;
    for (file, svg) in sections.iter().flat_map(|section| &section.plots) {
        fs::write(directory.join(file), svg).with_context(|| format!("write docs/{file}"))?;
    }
    Ok(())
}
