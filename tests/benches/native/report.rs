//! The table and the plot of one shape of data.

use super::case::{Found, Run};
use super::profile::Profile;
use super::side::Side;
use crate::document::Section;
use crate::plot;
use preload_tests::MIB;
use preload_tests::stats::Spread;

/// Bytes that a file may have and be one block.
const BLOCK: u64 = 64 * MIB;

pub(super) fn section(name: &'static str, title: &str, pairs: usize, found: &[Found]) -> Section {
    let mut section = Section::new(name, title);
    section.paragraph(&format!(
        "{pairs} rounds, in each all sides in turns, every second time backwards, after a round that does not \
         count; for each run a fresh directory and an empty cache. Two workers with their cache in memory, blocks of \
         64 MiB, data on the disk and in the page cache. Metadata are there before the clock starts, unless it says \
         cold. All JVMs of Alluxio, the commands too, run with small heaps and the first compiler only \
         (`-XX:TieredStopAtLevel=1`), which starts them sooner and makes them slower than production."
    ));
    section.paragraph(
        "- NATIVE: from before StartLoad to LOADED as WatchLoad says it, of one sidecar that runs already.\n\
         - distributedLoad, with `--replication`: from the start of the command to its end.\n\
         - `alluxio fs load PATH --submit`, then `--progress` again and again until it says SUCCEEDED: it makes one \
         copy only.\n\
         - cp: the same bytes from the same files into /dev/shm, as often as there are copies: the limit.",
    );
    section.paragraph(
        "Blocks: those that were on enough workers when the side said that it was done, counted on the workers' \
         disks; of incomplete runs the time is that of what they did. Balance: bytes of the worker with most over the \
         mean.",
    );
    let mut rows = Vec::new();
    let mut dots = Vec::new();
    for Found { case, sides } in found {
        for (side, runs) in sides {
            rows.push([
                case.name.clone(),
                side.name().to_owned(),
                Spread::of(runs.iter().map(|run| run.seconds)).to_string(),
                match (side, ratios(runs, runs_of(sides, Side::Native))) {
                    (Side::Native, _) | (_, None) => String::new(),
                    (_, Some(ratios)) => ratios.to_string(),
                },
                whole(*side, runs),
                balance(runs),
            ]);
            let seconds = runs.iter().map(|run| run.seconds).collect();
            dots.push((format!("{}: {}", case.name, side.name()), *side as usize, seconds));
        }
    }
    section.table(["data", "by", "s", "times NATIVE", "blocks at the wish", "balance"], &rows);
    incomplete(&mut section, found);
    bars(&mut section, found);
    profile(&mut section, found);
    let title = "Until the data are there: dots are runs, lines medians";
    section.plot(title, plot::dots(title, "seconds", &dots));
    section
}

fn runs_of(sides: &[(Side, Vec<Run>)], wanted: Side) -> &[Run] {
    sides.iter().find(|(side, _)| *side == wanted).map_or(&[], |(_, runs)| runs.as_slice())
}

/// Of the runs of one round, which found the machine alike. One that gave up is no measure.
fn ratios(runs: &[Run], native: &[Run]) -> Option<Spread> {
    let rounds = runs.iter().zip(native).filter(|(run, _)| run.said.is_empty());
    let ratios: Vec<_> = rounds.map(|(run, native)| run.seconds / native.seconds).collect();
    (!ratios.is_empty()).then(|| Spread::of(ratios))
}

/// What was not whole, and its words.
fn incomplete(section: &mut Section, found: &[Found]) {
    for Found { case, sides } in found {
        for (side, runs) in sides {
            let runs: Vec<_> = runs.iter().filter(|run| !run.is_whole()).collect();
            let Some(blocks) = runs.iter().map(|run| run.blocks).max() else { continue };
            let at_wish: Vec<_> = runs.iter().map(|run| run.at_wish.to_string()).collect();
            let mut said: Vec<_> =
                runs.iter().map(|run| run.said.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            said.sort();
            said.dedup();
            said.retain(|words| !words.is_empty());
            let words: Vec<_> = said.iter().map(|words| format!(" It said: \"{words}\".")).collect();
            section.paragraph(&format!(
                "Incomplete: {}, {}: {} of {blocks} blocks at the wish.{}",
                case.name,
                side.name(),
                at_wish.join(", "),
                words.concat()
            ));
        }
    }
}

/// Speed, that all is there, and, where blocks are equal, how even.
fn bars(section: &mut Section, found: &[Found]) {
    let mut rows = Vec::new();
    for Found { case, sides } in found {
        let native = runs_of(sides, Side::Native);
        if let Some((rival, faster)) = case.faster {
            let times = ratios(runs_of(sides, rival), native);
            rows.push((
                format!("{}: {faster} times faster than {}", case.name, rival.name()),
                times.map_or_else(|| "it never did it".to_owned(), |times| times.to_string()),
                times.is_some_and(|times| times.median >= faster),
            ));
        }
        let whole = native.iter().filter(|run| run.is_whole()).count();
        rows.push((
            format!("{}: every block at the wish in every run", case.name),
            format!("{whole} of {} runs", native.len()),
            whole == native.len(),
        ));
        let balance = Spread::of(native.iter().filter_map(|run| run.balance));
        if case.replicas == 1 && case.tree.size < BLOCK {
            rows.push((
                format!("{}: balance below 1.05", case.name),
                balance.to_string(),
                balance.most < 1.05,
            ));
        }
    }
    let rows: Vec<_> = rows.iter().map(|(bar, figure, met)| (bar.as_str(), figure.clone(), *met)).collect();
    section.bars(&rows);
}

/// Where the time of NATIVE goes.
fn profile(section: &mut Section, found: &[Found]) {
    let mut rows = Vec::new();
    for Found { case, sides } in found {
        let runs: Vec<_> =
            runs_of(sides, Side::Native).iter().filter_map(|run| run.profile.as_ref()).collect();
        let of =
            |figure: fn(&Profile) -> f64| Spread::of(runs.iter().map(|profile| figure(profile))).to_string();
        rows.push([
            case.name.clone(),
            of(|profile| profile.waiting),
            of(|profile| profile.loading),
            of(|profile| profile.verifying),
            of(|profile| profile.cpu.workers),
            of(|profile| profile.cpu.master),
            of(|profile| profile.cpu.sidecar),
        ]);
    }
    section
        .paragraph("Where the time of NATIVE goes, in seconds: listing and counting come before LOADING; CPU is user and system time, of all cores.");
    section.table(
        [
            "data",
            "until LOADING",
            "LOADING",
            "VERIFYING",
            "CPU of the workers",
            "of the master",
            "of the sidecar",
        ],
        &rows,
    );
}

fn whole(side: Side, runs: &[Run]) -> String {
    if !side.caches() {
        return String::new();
    }
    let blocks = runs.iter().map(|run| run.blocks).max().unwrap_or_default();
    let whole = runs.iter().filter(|run| run.is_whole()).count();
    if whole == runs.len() {
        return format!("all {blocks}, each time");
    }
    let at_wish = Spread::of(runs.iter().map(|run| run.at_wish as f64));
    format!(
        "**{} ({}-{}) of {blocks}**; all in {whole} of {} runs",
        at_wish.median,
        at_wish.least,
        at_wish.most,
        runs.len()
    )
}

fn balance(runs: &[Run]) -> String {
    let figures: Vec<_> = runs.iter().filter_map(|run| run.balance).collect();
    if figures.is_empty() { String::new() } else { Spread::of(figures).to_string() }
}
