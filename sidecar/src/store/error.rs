//! What can go wrong with the store, for whom, and what to do about it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::job::LoadId;

/// The store cannot be opened. An operator acts: each message says on what, and how.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{} is in use by {}; stop it, or give another state directory", file.display(), owner(*pid))]
    Locked { file: PathBuf, pid: Option<u32> },
    #[error("{} is not a directory; give the state directory's path", path.display())]
    NotADirectory { path: PathBuf },
    #[error("no permission to write {}; make it writable for the user of this process", path.display())]
    NoPermission { path: PathBuf },
    #[error("{} is on a read-only file system; mount it writable, or give another state directory", path.display())]
    ReadOnly { path: PathBuf },
    #[error("no room left for {}; make room and start again", path.display())]
    Full { path: PathBuf },
    #[error(
        "{} has schema version {found}, this program knows {known} at most; run the newer version that wrote it, or {}",
        file.display(), aside(file)
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("{} is damaged: {problem}; {}", file.display(), aside(file))]
    Damaged { file: PathBuf, problem: String },
    #[error("{what} {}: {problem}; see whether the disk is well", path.display())]
    Io { what: &'static str, path: PathBuf, problem: String },
}

/// One call of the store failed; what was acknowledged before is not touched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("no room left for {}; make room", file.display())]
    Full { file: PathBuf },
    #[error("{} is on a read-only file system; mount it writable", file.display())]
    ReadOnly { file: PathBuf },
    #[error("reading or writing {}: {problem}; see whether the disk is well", file.display())]
    Io { file: PathBuf, problem: String },
    #[error("{} is locked by another program; end that program", file.display())]
    Busy { file: PathBuf },
    /// The file as a whole; other rows may still be readable.
    #[error("{} is damaged: {problem}; stop the sidecar and {}", file.display(), aside(file))]
    Corrupt { file: PathBuf, problem: String },
    /// One row, in quarantine now. Deleting the load forgets it.
    #[error("the record of load {id} is damaged and in quarantine; delete the load to use its id again")]
    Damaged { id: String },
    /// Of [`update`](super::Store::update): deleted meanwhile.
    #[error("load {id} is not in the store")]
    NotFound { id: LoadId },
    #[error("the store is closed")]
    Closed,
    /// A fault of this program.
    #[error("{}: {problem}", file.display())]
    Internal { file: PathBuf, problem: String },
}

impl StoreError {
    /// The same call may succeed later, without a change of the call or a restart.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full { .. } | Self::ReadOnly { .. } | Self::Io { .. } | Self::Busy { .. } => true,
            Self::Corrupt { .. }
            | Self::Damaged { .. }
            | Self::NotFound { .. }
            | Self::Closed
            | Self::Internal { .. } => false,
        }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn aside(file: &Path) -> String {
    format!(
        "move {0} and {0}-wal aside to begin with an empty store (it forgets every load; cached data stay)",
        file.display()
    )
}
