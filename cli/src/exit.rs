//! Exit codes: the one place that gives them numbers.

use std::process::ExitCode;
use tonic::Code;

/// How the program ends. Numbers are a promise to scripts and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. With a watch, and for `verify`: the load is LOADED (with `cancel`: CANCELLED).
    Ok = 0,
    /// A load has ended, and not in the state that was asked for.
    Ended = 1,
    /// The command line or the request is wrong. Also clap's own.
    Usage = 2,
    /// No answer from the sidecar: what became of the request is not known.
    Unreachable = 3,
    NotFound = 4,
    /// The sidecar answered and would or could not do it.
    Refused = 5,
    /// Standard output is closed or full (EX_IOERR of sysexits.h).
    Output = 74,
    /// Ctrl-C while watching (128 + SIGINT).
    Interrupted = 130,
}

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done; with --watch, and for watch and verify: the load is LOADED (with cancel --watch: CANCELLED)
  1    the load ended in another state: FAILED, CANCELLED, STALE (with cancel --watch: LOADED too)
  2    wrong usage, or the sidecar found an argument invalid
  3    the sidecar could not be reached, or stopped answering; verify: Alluxio or a worker did
  4    there is no such load
  5    the sidecar refused: id in use for another spec, load not finished, queue full, not allowed,
       not supported, or a fault of its own
  74   standard output is closed or cannot be written
  130  Ctrl-C while watching; the load goes on
get, list and failures exit 0 whatever the state of the loads that they show.";

impl Exit {
    /// For an answer of the sidecar, or the lack of one.
    pub fn of(code: Code, unreachable: bool) -> Self {
        match code {
            _ if unreachable => Self::Unreachable,
            Code::Ok => Self::Ok,
            Code::InvalidArgument | Code::OutOfRange => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Self::Unreachable,
            Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::Aborted
            | Code::Cancelled
            | Code::DataLoss
            | Code::Internal
            | Code::Unknown => Self::Refused,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_code_has_its_exit_code() {
        let table = [
            (Code::Ok, 0),
            (Code::Cancelled, 5),
            (Code::Unknown, 5),
            (Code::InvalidArgument, 2),
            (Code::DeadlineExceeded, 3),
            (Code::NotFound, 4),
            (Code::AlreadyExists, 5),
            (Code::PermissionDenied, 5),
            (Code::ResourceExhausted, 5),
            (Code::FailedPrecondition, 5),
            (Code::Aborted, 5),
            (Code::OutOfRange, 2),
            (Code::Unimplemented, 5),
            (Code::Internal, 5),
            (Code::Unavailable, 3),
            (Code::DataLoss, 5),
            (Code::Unauthenticated, 5),
        ];
        for (code, exit) in table {
            assert_eq!(Exit::of(code, false) as u8, exit, "{code:?}");
            assert_eq!(Exit::of(code, true) as u8, 3, "{code:?}, made by the transport");
        }
    }

    #[test]
    fn help_lists_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Ended,
            Exit::Usage,
            Exit::Unreachable,
            Exit::NotFound,
            Exit::Refused,
            Exit::Output,
            Exit::Interrupted,
        ] {
            assert!(HELP.contains(&format!("\n  {} ", exit as u8)), "{exit:?}");
        }
    }
}
