//! What can go wrong, as the user reads it on standard error.

use crate::{exit::Exit, text};
use alluxio_preload_api::client::{ConfigError, Explanation};
use std::{error::Error as _, io, io::Write};
use tonic::Status;

/// Tells the user something that is no result. Nothing can be done when standard error is gone.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot read {path}")]
    File { path: String, source: io::Error },
    /// The sidecar at this address said no, or nothing.
    #[error("{address}: {}", Explanation::of(status).message)]
    Call { address: String, status: Box<Status>, hint: Option<&'static str> },
    #[error("the sidecar sent the same page twice; it may be of another version than this program")]
    Paging,
    #[error("cannot put the answer into JSON")]
    Json(#[from] crate::json::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("stopped watching; load {load_id} goes on; to cancel it: preloadctl cancel {load_id}")]
    Interrupted { load_id: String },
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::File { .. } => Exit::Usage,
            Self::Call { status, .. } => {
                let explanation = Explanation::of(status);
                Exit::of(explanation.code, explanation.unreachable)
            }
            Self::Paging => Exit::Refused,
            Self::Json(_) | Self::Output(_) => Exit::Output,
            Self::Interrupted { .. } => Exit::Interrupted,
        }
    }

    /// The text for standard error; `None` when there is nobody to read it: `preloadctl list | head` is
    /// no fault.
    pub(crate) fn report(&self) -> Option<String> {
        let prefix = match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            Self::Interrupted { .. } => "",
            _ => "error: ",
        };
        let mut report = format!("{prefix}{}", text::clean(&self.to_string()));
        match self {
            Self::Call { status, hint, .. } => {
                let lines = Explanation::of(status).lines();
                for line in lines.iter().map(String::as_str).chain(hint.iter().copied()) {
                    report.push_str("\n  ");
                    report.push_str(&text::clean(line));
                }
            }
            _ => {
                let mut source = self.source();
                while let Some(cause) = source {
                    report.push_str(": ");
                    report.push_str(&text::clean(&cause.to_string()));
                    source = cause.source();
                }
            }
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_reported_with_its_next_step_and_escaped() {
        let status = Box::new(Status::not_found("no load `\u{1b}[2J`"));
        let error = Error::Call { address: "h:1".into(), status, hint: Some("see the manual") };
        assert_eq!(
            error.report().unwrap(),
            "error: h:1: no load `\\u{1b}[2J`\n  next: list the loads to see which exist\n  see the manual"
        );
        assert_eq!(error.exit(), Exit::NotFound);
    }

    #[test]
    fn causes_are_told() {
        let source = io::Error::other("no such file");
        let error = Error::File { path: "/ca.pem".into(), source };
        assert_eq!(error.report().unwrap(), "error: cannot read /ca.pem: no such file");
    }

    #[test]
    fn a_closed_pipe_is_silent_but_not_a_success() {
        let error = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(error.report(), None);
        assert_eq!(error.exit(), Exit::Output);
    }
}
