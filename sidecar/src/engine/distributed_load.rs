//! One run of `alluxio fs distributedLoad --replication N PATH`.
//!
//! Its exit code and its "Successfully loaded" lines are hints only: it exits 0 with nothing loaded when
//! there are too few workers, no job worker, no room, or when its job master dies (seen with 2.9.3).

use std::{collections::HashMap, ffi::OsString};

use alluxio_client::{Client, Error, JobStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    MAX_CAUSES,
    launcher::Launcher,
    leftovers,
    output::{Line, Output},
    process::{self, Exit, ProcessError},
};
use crate::job::{AlluxioPath, Remnant};

/// Longest cause kept, in characters: Java traces are long.
const CAUSE_CHARS: usize = 300;

/// What to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub path: AlluxioPath,
    pub replicas: u32,
}

/// What a run has told so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// It has said something of its own: its JVM is up, and it submits its jobs.
    pub began: bool,
    /// Its id in the job service; the submission is over.
    pub job_control_id: Option<i64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub exit: Exit,
    pub output: Output,
}

/// Runs the command to its end, or ends it when `stop` is cancelled. What it says goes to `told` at once.
pub async fn run(
    launcher: &Launcher,
    wish: &Wish,
    told: &watch::Sender<Told>,
    stop: &CancellationToken,
) -> Result<End, ProcessError> {
    let mut arguments: Vec<OsString> =
        vec!["fs".into(), "distributedLoad".into(), "--replication".into(), wish.replicas.to_string().into()];
    // Absolute, so it can never be taken for an option.
    arguments.push(wish.path.as_str().into());
    let mut output = Output::default();
    let program = launcher.program(arguments);
    let exit = process::run(
        &program,
        |line| {
            tracing::debug!(target: "alluxio_command", "{}", String::from_utf8_lossy(line));
            let line = output.read(line);
            told.send_if_modified(|told| {
                let before = *told;
                told.began |= line != Line::Noise;
                if let Line::Submitted { job_control_id } = line {
                    told.job_control_id = Some(job_control_id);
                }
                *told != before
            });
        },
        stop,
    )
    .await?;
    Ok(End { exit, output })
}

/// Largest id in the job service: whatever we start next gets a larger one.
pub async fn job_floor(client: &Client) -> Result<i64, Error> {
    Ok(client.job_ids(&[]).await?.into_iter().max().unwrap_or(0))
}

/// Why files of our run failed, in Alluxio's words, by path. The job service forgets finished jobs after a
/// while (30 s under Fluid), so ask right after the run.
pub async fn causes(
    client: &Client,
    path: &AlluxioPath,
    remnant: Remnant,
) -> Result<HashMap<String, String>, Error> {
    let jobs = client.jobs(&[JobStatus::Failed]).await?;
    let ours = jobs.into_iter().filter(|job| leftovers::is_ours(job, path, remnant));
    Ok(ours
        .flat_map(|job| {
            let cause = cause(&job.error_message);
            job.affected_paths.into_iter().map(move |path| (path, cause.clone()))
        })
        .filter(|(_, cause)| !cause.is_empty())
        .take(MAX_CAUSES)
        .collect())
}

/// What matters of an error message in one line: from the innermost exception on, since what Alluxio puts in
/// front of it is the whole of a request.
pub(super) fn cause(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let exception =
        line.rfind("Exception: ").map_or(0, |at| line[..at].rfind(' ').map_or(0, |space| space + 1));
    line[exception..].chars().take(CAUSE_CHARS).collect()
}

impl End {
    /// It gave up by itself before any work was submitted. Now and then the job master's own connection to the master is
    /// "not authenticated", and it fails the next command or two (seen with 2.9.3).
    #[must_use]
    pub fn was_refused(&self) -> bool {
        // 128 and more: a signal ended it (the shell's convention); its jobs may be there all the same.
        let gave_up = matches!(self.exit, Exit::Code(code) if (1..128).contains(&code) || code == 255);
        gave_up && !self.output.worked && !self.output.path_missing
    }

    /// One sentence when the command itself says that it did not do its work; else empty.
    #[must_use]
    pub fn complaint(&self) -> String {
        match self.exit {
            Exit::Code(0) => match self.output.summary {
                Some((_, failed)) if failed > 0 => format!("distributedLoad says that {failed} failed"),
                _ => String::new(),
            },
            Exit::Code(code) => format!("distributedLoad exited with {code}: {}", self.output.tail(3)),
            Exit::Killed(signal) => format!("distributedLoad's supervisor was killed by signal {signal}"),
            Exit::Stopped => "distributedLoad was stopped".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit: Exit, text: &str) -> End {
        let mut output = Output::default();
        for line in text.lines() {
            output.read(line.as_bytes());
        }
        End { exit, output }
    }

    #[test]
    fn a_cause_is_the_innermost_exception() {
        let said = "Task execution failed: sessionId: 7\nblock_size: 1000\nno_cache: false\n\
                    : java.io.FileNotFoundException: /ufs/a b/f0 (No such file or directory) (Zero Copy)";
        assert_eq!(
            cause(said),
            "java.io.FileNotFoundException: /ufs/a b/f0 (No such file or directory) (Zero Copy)"
        );
        let plain = "Failed to find enough block workers to replicate to.\n Needed 2 but only found 1.";
        assert_eq!(cause(plain), plain.replace("\n ", " "));
        assert_eq!(cause("Exception: x"), "Exception: x");
        assert_eq!(cause(&"x".repeat(5000)).len(), CAUSE_CHARS);
    }

    #[test]
    fn only_a_command_that_gave_up_before_it_submitted_was_refused() {
        let refusal = include_str!("../../fixtures/alluxio-2.9.3/not-authenticated.txt");
        assert!(end(Exit::Code(255), refusal).was_refused());
        assert!(!end(Exit::Code(0), refusal).was_refused());
        for signal in [137, 143] {
            assert!(!end(Exit::Code(signal), refusal).was_refused(), "its jobs may be there");
        }
        assert!(!end(Exit::Stopped, refusal).was_refused());
        let submitted =
            "Submitted successfully, jobControlId = 7\nUnable to get running status for command 7.";
        assert!(!end(Exit::Code(255), submitted).was_refused());
        let missing = include_str!("../../fixtures/alluxio-2.9.3/path-missing.txt");
        assert!(!end(Exit::Code(255), missing).was_refused());
    }
}
