//! The files of a store: creating, locking, opening.
//!
//! `loads.sqlite3` is made under another name and renamed when it is complete. So an empty one, or a log
//! (`-wal`) without it, is damage and never a new store.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, config::DbConfig};
use uuid::Uuid;

use super::{
    error::OpenError,
    ledger::Ledger,
    schema::{self, APPLICATION_ID, MIGRATIONS},
};

pub(super) const FILE: &str = "loads.sqlite3";
const NEW: &str = "loads.sqlite3.new";
const LOCK: &str = "loads.lock";

/// How long to wait for somebody who looks at the file with another program.
const BUSY: Duration = Duration::from_secs(5);

/// What opening found.
pub(super) struct Opened {
    pub(super) file: PathBuf,
    pub(super) conn: Connection,
    pub(super) ledger: Ledger,
    pub(super) uid: Uuid,
    pub(super) lock: Lock,
}

/// Held as long as a thread of the store lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing is not enough: a child process that was just forked may hold the same open file.
    fn drop(&mut self) {
        let _unlocked_by_closing_then = self.0.unlock();
    }
}

pub(super) fn open(dir: &Path) -> Result<Opened, OpenError> {
    match fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => return Err(OpenError::NotADirectory { path: dir.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|e| OpenError::from_io("creating", dir, &e))?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                sync(parent)?;
            }
        }
        Err(error) => return Err(OpenError::from_io("looking at", dir, &error)),
    }
    let lock = lock(dir)?;
    let file = dir.join(FILE);
    let exists = |path: &Path| match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::from_io("looking at", path, &error)),
    };
    let damaged = |problem: &str| OpenError::Damaged { file: file.clone(), problem: problem.to_owned() };
    match exists(&file)? {
        None if exists(&dir.join("loads.sqlite3-wal"))?.is_some_and(|bytes| bytes > 0) => {
            return Err(damaged("its log is there, the file is not"));
        }
        None => create(dir, &file)?,
        Some(0) => return Err(damaged("it is empty")),
        Some(_) => {}
    }
    let sql = |error: rusqlite::Error| OpenError::from_sql(&file, &error);
    let mut conn = connect(&file).map_err(sql)?;
    if conn.is_readonly("main").map_err(sql)? {
        access(&file, AccessFlags::W_OK).map_err(|e| OpenError::from_io("writing", &file, &e.into()))?;
        return Err(damaged("its header forbids writing"));
    }
    let known = schema::latest(MIGRATIONS);
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sql)?;
    if application != APPLICATION_ID {
        return Err(damaged("it is not a store of this program"));
    }
    let version = schema::version(&conn).map_err(sql)?;
    if version > known {
        return Err(OpenError::Newer { file, found: version, known });
    }
    let version = usize::try_from(version).unwrap_or(0);
    if version == 0 || !schema::is_intact(&conn, version).map_err(sql)? {
        return Err(damaged("its schema is not what this program wrote"));
    }
    schema::migrate(&mut conn, MIGRATIONS).map_err(sql)?;
    let (ledger, uid) = Ledger::read(&conn)
        .map_err(sql)?
        .ok_or_else(|| damaged("the checksum of its ledger does not hold"))?;
    ledger.audit(&mut conn, &file)?;
    Ok(Opened { file, conn, ledger, uid, lock })
}

/// A connection as every thread of the store needs it.
pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    use rusqlite::OpenFlags as Flags;
    let flags = Flags::SQLITE_OPEN_READ_WRITE | Flags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Whoever only looks, or finds damage, leaves the log alone; the writer's end folds it in.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // FULL: COMMIT returns after the log is on the disk. Temporary data stay in memory: the root file
    // system may be read-only. The log is folded in from 1 MiB on, as volumes for states are small, and shrinks to
    // 4 MiB again after a burst.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 4194304;
         PRAGMA wal_autocheckpoint = 256;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(conn)
}

fn create(dir: &Path, file: &Path) -> Result<(), OpenError> {
    let new = dir.join(NEW);
    for left_over in [new.clone(), dir.join("loads.sqlite3.new-wal"), dir.join("loads.sqlite3.new-shm")] {
        match fs::remove_file(&left_over) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::from_io("removing", &left_over, &error));
            }
            _ => {}
        }
    }
    let io = |error: &io::Error| OpenError::from_io("creating", file, error);
    // Paths of data are nobody else's business; the log inherits the mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(|e| io(&e))?;
    fill(&new).map_err(|error| OpenError::from_sql(&new, &error))?;
    File::open(&new).and_then(|f| f.sync_all()).map_err(|e| io(&e))?;
    fs::rename(&new, file).map_err(|e| io(&e))?;
    sync(dir)
}

fn fill(new: &Path) -> rusqlite::Result<()> {
    let mut conn = connect(new)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    schema::migrate(&mut conn, MIGRATIONS)?;
    Ledger::new().write(&conn, Uuid::new_v4())?;
    // The file gets its name without its log. Closing folds that in too, but does not say when it cannot.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    conn.close().map_err(|(_, error)| error)
}

/// What the directory names is durable.
fn sync(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| OpenError::from_io("syncing", dir, &e))
}

fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join(LOCK);
    let io = |error: &io::Error| OpenError::from_io("locking", &path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| io(&e))?;
    match file.try_lock() {
        Ok(()) => {
            // For people only: a full disk must not keep a store from opening.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(OpenError::Locked { file: dir.join(FILE), pid: text.trim().parse().ok() })
        }
        Err(TryLockError::Error(error)) => Err(io(&error)),
    }
}
