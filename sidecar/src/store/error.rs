//! What can go wrong with the store, for whom, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};
use rusqlite::{Error as Sql, ErrorCode, ffi::SQLITE_IOERR_SHORT_READ};
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
    #[error("no room left for {}; make room", path.display())]
    Full { path: PathBuf },
    #[error(
        "{} has schema version {found}, this program knows {known} at most; run the newer version that wrote it, or {}",
        file.display(), aside(file)
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("{} is damaged: {problem}; {}", file.display(), aside(file))]
    Damaged { file: PathBuf, problem: String },
    #[error("{what} {}: {problem}; see whether the disk is well (dmesg)", path.display())]
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
    #[error("reading or writing {}: {problem}; see whether the disk is well (dmesg)", file.display())]
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
    /// Rolled back; the thread goes on.
    #[error("the sidecar has a bug: a request to the store panicked; see its log")]
    Panicked,
    /// A fault of this program.
    #[error("the sidecar has a bug: {}: {problem}; please report this line", file.display())]
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
            | Self::Panicked
            | Self::Internal { .. } => false,
        }
    }
}

/// Why an operation inside a thread of the store did not give its result.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Store(StoreError),
    /// To be put in quarantine.
    Bad(Bad),
}

/// A row that does not hold.
#[derive(Debug, Clone)]
pub(super) struct Bad {
    pub(super) ordinal: i64,
    pub(super) reason: String,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The file is not known where most statements run: [`StoreError::at`] puts it in.
impl From<Sql> for Fault {
    fn from(error: Sql) -> Self {
        Self::Store(StoreError::from_sql(&error))
    }
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> Self {
        match self {
            Self::Store(error) => Self::Store(error.at(path)),
            Self::Bad(bad) => Self::Bad(bad),
        }
    }
}

impl StoreError {
    fn from_sql(error: &Sql) -> Self {
        let file = PathBuf::new();
        let problem = error.to_string();
        match error {
            // A page that ends in its middle: the file was cut.
            Sql::SqliteFailure(failure, _) if failure.extended_code == SQLITE_IOERR_SHORT_READ => {
                Self::Corrupt { file, problem }
            }
            Sql::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Self::Full { file },
                ErrorCode::ReadOnly => Self::ReadOnly { file },
                ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => Self::Io { file, problem },
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed => Self::Busy { file },
                // Operations look before they write: a constraint that fails all the same means damage.
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                    Self::Corrupt { file, problem }
                }
                _ => Self::Internal { file, problem },
            },
            Sql::FromSqlConversionFailure(..)
            | Sql::IntegralValueOutOfRange(..)
            | Sql::InvalidColumnType(..)
            | Sql::QueryReturnedNoRows
            | Sql::Utf8Error(..) => Self::Corrupt { file, problem },
            _ => Self::Internal { file, problem },
        }
    }

    /// Says which file, and asks its file system what an I/O error may mean: SQLite keeps `errno` to itself.
    pub(super) fn at(self, path: &Path) -> Self {
        let file = path.to_owned();
        match self {
            Self::Io { problem, .. } => match statvfs(path) {
                Ok(disk) if disk.flags().contains(FsFlags::ST_RDONLY) => Self::ReadOnly { file },
                Ok(disk) if disk.blocks_available() == 0 => Self::Full { file },
                _ => Self::Io { file, problem },
            },
            Self::Full { .. } => Self::Full { file },
            Self::ReadOnly { .. } => Self::ReadOnly { file },
            Self::Busy { .. } => Self::Busy { file },
            Self::Corrupt { problem, .. } => Self::Corrupt { file, problem },
            Self::Internal { problem, .. } => Self::Internal { file, problem },
            Self::Damaged { .. } | Self::NotFound { .. } | Self::Closed | Self::Panicked => self,
        }
    }
}

impl OpenError {
    pub(super) fn from_io(what: &'static str, path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { what, path, problem: error.to_string() },
        }
    }

    pub(super) fn from_sql(file: &Path, error: &Sql) -> Self {
        let file = file.to_owned();
        match StoreError::from_sql(error).at(&file) {
            StoreError::Full { file: path } => Self::Full { path },
            StoreError::ReadOnly { file: path } => Self::ReadOnly { path },
            StoreError::Busy { file } => Self::Locked { file, pid: None },
            StoreError::Io { file: path, problem } => Self::Io { what: "opening", path, problem },
            // A statement of ours that does not even compile: the schema is not what it was.
            _ => Self::Damaged { file, problem: error.to_string() },
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
