//! Reads what `alluxio fs distributedLoad` prints. Total over any bytes; everything it learns is a hint.
//!
//! Two dialects are known (Alluxio 2.7 and 2.9; recorded in `sidecar/fixtures/`). Errors too go to stdout.

use std::collections::VecDeque;

/// Lines kept for a message when the command fails.
const LAST_LINES: usize = 20;
/// Longest part of a line that is kept, in characters.
const LINE_CHARS: usize = 400;

/// One line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// All jobs are in the job service under this id (2.9).
    Submitted {
        job_control_id: i64,
    },
    /// `Successfully loaded path` of one file (2.9) or of a batch of files (2.7).
    Loaded,
    /// What the command counts: files in 2.9, batches of files in 2.7.
    Summary {
        completed: u64,
        failed: u64,
    },
    /// `Path "..." does not exist.`
    PathMissing,
    /// This Alluxio has no such command.
    UnknownCommand,
    /// Nothing of the command's own: an empty line, or the JVM about itself.
    Noise,
    Other,
}

/// What a whole run said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub job_control_id: Option<i64>,
    pub summary: Option<(u64, u64)>,
    pub path_missing: bool,
    pub unknown_command: bool,
    /// It told of work that was submitted or done.
    pub worked: bool,
    last: VecDeque<String>,
}

impl Output {
    /// Takes one line in, without its line end, and tells what it was.
    pub fn read(&mut self, bytes: &[u8]) -> Line {
        let text = String::from_utf8_lossy(bytes);
        let line = parse(&text);
        self.worked |= matches!(line, Line::Submitted { .. } | Line::Loaded | Line::Summary { .. });
        match line {
            Line::Submitted { job_control_id } => self.job_control_id = Some(job_control_id),
            Line::Summary { completed, failed } => self.summary = Some((completed, failed)),
            Line::PathMissing => self.path_missing = true,
            Line::UnknownCommand => self.unknown_command = true,
            Line::Loaded | Line::Noise | Line::Other => {}
        }
        if !matches!(line, Line::Loaded | Line::Noise) {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(text.chars().take(LINE_CHARS).collect());
        }
        line
    }

    /// The last things said, in one line, for a message.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let skipped = self.last.len().saturating_sub(lines);
        self.last.iter().skip(skipped).map(|l| l.trim()).collect::<Vec<_>>().join(" | ")
    }
}

fn parse(text: &str) -> Line {
    let text = text.trim_end();
    // The JVM says on stderr that it saw _JAVA_OPTIONS; that is our own doing.
    if text.is_empty() || text.starts_with("Picked up _JAVA_OPTIONS") {
        return Line::Noise;
    }
    if let Some((_, id)) = text.split_once("jobControlId = ") {
        // "Finished running the command, jobControlId = N" names it once more.
        return id.trim().parse().map_or(Line::Other, |job_control_id| Line::Submitted { job_control_id });
    }
    if text.contains("Successfully loaded path ") {
        return Line::Loaded;
    }
    if let Some(rest) = text.strip_prefix("Total completed file count is ") {
        return summary(rest, ", failed file count is ");
    }
    if let Some(rest) = text.strip_prefix("Completed count is ") {
        return summary(rest.trim_end_matches('.'), ",Failed count is ");
    }
    if text.starts_with("Path \"") && text.ends_with("\" does not exist.") {
        return Line::PathMissing;
    }
    if text.ends_with("is an unknown command.") {
        return Line::UnknownCommand;
    }
    Line::Other
}

fn summary(text: &str, between: &str) -> Line {
    text.split_once(between)
        .and_then(|(completed, failed)| {
            Some(Line::Summary {
                completed: completed.trim().parse().ok()?,
                failed: failed.trim().parse().ok()?,
            })
        })
        .unwrap_or(Line::Other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Output {
        let mut output = Output::default();
        for line in text.lines() {
            output.read(line.as_bytes());
        }
        output
    }

    #[test]
    fn alluxio_2_9_3_all_well() {
        let output = read(include_str!("../../fixtures/alluxio-2.9.3/ok.txt"));
        assert!(output.worked && output.job_control_id.is_some());
        assert_eq!(output.summary, Some((10, 0)));
    }

    #[test]
    fn alluxio_2_9_3_failed_files() {
        let output = read(include_str!("../../fixtures/alluxio-2.9.3/failed-files.txt"));
        assert_eq!(output.summary, Some((3, 2)));
        assert!(output.tail(9).contains("Here are failed files"));
    }

    #[test]
    fn alluxio_2_9_3_path_missing() {
        assert!(read(include_str!("../../fixtures/alluxio-2.9.3/path-missing.txt")).path_missing);
    }

    #[test]
    fn alluxio_2_9_6_has_no_such_command() {
        assert!(read(include_str!("../../fixtures/alluxio-2.9.6/unknown-command.txt")).unknown_command);
        assert!(!read(include_str!("../../fixtures/alluxio-2.9.3/usage.txt")).unknown_command);
    }

    #[test]
    fn alluxio_2_9_3_is_refused_by_its_job_master() {
        let output = read(include_str!("../../fixtures/alluxio-2.9.3/not-authenticated.txt"));
        assert!(!output.worked && !output.path_missing && !output.unknown_command);
        assert!(output.tail(1).contains("is not authenticated for call"));
    }

    #[test]
    fn alluxio_2_7_3_counts_batches() {
        let output = read(include_str!("../../fixtures/alluxio-2.7.3/ok.txt"));
        assert_eq!((output.worked, output.job_control_id, output.summary), (true, None, Some((1, 0))));
        let output = read(include_str!("../../fixtures/alluxio-2.7.3/failed-files.txt"));
        assert_eq!(output.summary, Some((0, 1)));
        assert!(output.tail(9).contains("FileNotFoundException"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut output = Output::default();
        for _ in 0..100_000 {
            output.read(&[b'x'; 2000]);
        }
        assert!(output.last.iter().map(String::len).sum::<usize>() <= LAST_LINES * LINE_CHARS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50)) {
            let mut output = Output::default();
            for line in &lines {
                output.read(line);
            }
            prop_assert!(output.tail(usize::MAX).len() <= LAST_LINES * LINE_CHARS * 4);
        }

        #[test]
        fn numbers_come_through(completed in any::<u64>(), failed in any::<u64>(), id in any::<i64>()) {
            let text = format!(
                "Submitted successfully, jobControlId = {id}\n\
                 Total completed file count is {completed}, failed file count is {failed}"
            );
            let output = read(&text);
            prop_assert_eq!(output.summary, Some((completed, failed)));
            prop_assert_eq!(output.job_control_id, Some(id));
        }
    }
}
