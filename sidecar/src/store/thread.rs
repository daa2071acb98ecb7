//! The two threads of a store: one writes, one reads; each owns its connection.
//!
//! The writer makes one transaction of all that waits in its channel: one fsync serves all of them. Nobody
//! is answered before COMMIT. A request that fails is rolled back alone; when COMMIT fails, all of its
//! group are told, and nothing of it stays. A request that panics fails like any other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, TransactionBehavior, config::DbConfig};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    disk::{self, Lock},
    error::{Fault, StoreError},
    ledger::Ledger,
};

/// Requests that wait before callers do.
const QUEUE: usize = 1024;
/// Requests in one transaction: what a commit takes then stays far below a second.
const GROUP: usize = 256;

/// Sends work to a thread; what was sent is done, whether or not the caller still waits for it.
pub(super) struct Worker<J> {
    sender: mpsc::Sender<Message<J>>,
}

enum Message<J> {
    Work(J),
    Close,
}

impl<J> Clone for Worker<J> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<J> Worker<J> {
    async fn send(&self, work: J) -> Result<(), StoreError> {
        self.sender.send(Message::Work(work)).await.map_err(|_closed| StoreError::Closed)
    }

    /// After all that was sent before.
    pub(super) async fn close(&self) {
        let _ended_already = self.sender.send(Message::Close).await;
    }
}

/// What the work leaves half done is rolled back by whoever called it.
fn unless_panicked<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_logged| Err(StoreError::Panicked.into()))
}

// === reading ===

pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

impl Worker<Read> {
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let run = move |conn: &Connection| {
            let _caller_gone = reply.send(unless_panicked(|| work(conn)));
        };
        self.send(Box::new(run)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }
}

pub(super) fn reader(conn: Connection, lock: Arc<Lock>) -> std::io::Result<(Worker<Read>, JoinHandle<()>)> {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let thread = thread::Builder::new().name("store-reader".to_owned()).spawn(move || {
        let _held_until_the_end = lock;
        while let Some(Message::<Read>::Work(run)) = receiver.blocking_recv() {
            // One snapshot for all that a call reads: an index and its row belong together.
            let snapshot = conn.unchecked_transaction();
            run(&conn);
            drop(snapshot);
        }
    })?;
    Ok((Worker { sender }, thread))
}

// === writing ===

pub(super) type Write = Box<dyn Work>;

/// A request inside its group.
pub(super) trait Work: Send {
    /// Within a savepoint that is rolled back on an error.
    fn run(&mut self, conn: &Connection, ledger: &mut Ledger) -> Result<(), Fault>;
    /// `outcome`: of the group.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Request<T, F> {
    work: Option<F>,
    result: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Work for Request<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Ledger) -> Result<T, Fault> + Send,
{
    fn run(&mut self, conn: &Connection, ledger: &mut Ledger) -> Result<(), Fault> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = unless_panicked(|| work(conn, ledger));
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let result = match (outcome, self.result) {
            // A request that failed by itself says why.
            (_, Some(Err(fault))) => Err(fault),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Ok(()), None) => Err(StoreError::Closed.into()),
        };
        let _caller_gone = self.reply.send(result);
    }
}

impl Worker<Write> {
    /// Durable when it returns.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Ledger) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(Request { work: Some(work), result: None, reply })).await?;
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }
}

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) ledger: Ledger,
    pub(super) uid: Uuid,
    pub(super) file: PathBuf,
}

impl Writer {
    pub(super) fn spawn(mut self, lock: Arc<Lock>) -> std::io::Result<(Worker<Write>, JoinHandle<()>)> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let _held_until_the_end = lock;
            let mut group: Vec<Write> = Vec::with_capacity(GROUP);
            let mut open = true;
            while open && let Some(Message::Work(first)) = receiver.blocking_recv() {
                group.push(first);
                while group.len() < GROUP
                    && open
                    && let Ok(message) = receiver.try_recv()
                {
                    match message {
                        Message::Work(work) => group.push(work),
                        Message::Close => open = false,
                    }
                }
                self.serve(&mut group);
            }
            self.end();
        })?;
        Ok((Worker { sender }, thread))
    }

    fn serve(&mut self, group: &mut Vec<Write>) {
        let before = self.ledger;
        let outcome = self.commit(group).map_err(|fault| match fault.at(&self.file) {
            Fault::Store(error) => error,
            Fault::Bad(bad) => StoreError::Internal { file: self.file.clone(), problem: bad.reason },
        });
        if let Err(error) = &outcome {
            self.ledger = before;
            tracing::warn!(%error, requests = group.len(), "a transaction was rolled back");
            self.reconnect_after(error);
        }
        for work in group.drain(..) {
            work.answer(outcome.clone());
        }
    }

    fn commit(&mut self, group: &mut [Write]) -> Result<(), Fault> {
        let before = self.ledger;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Prepared once: rusqlite's own savepoints are parsed anew each time, for every request.
        let savepoint = |sql: &str| tx.prepare_cached(sql)?.execute(());
        for work in group {
            let mark = self.ledger;
            savepoint("SAVEPOINT request")?;
            if let Err(fault) = work.run(&tx, &mut self.ledger) {
                self.ledger = mark;
                // Some errors make SQLite roll the whole transaction back by itself.
                if tx.is_autocommit() {
                    return Err(fault);
                }
                savepoint("ROLLBACK TO request")?;
            }
            savepoint("RELEASE request")?;
        }
        if self.ledger != before {
            self.ledger.write(&tx, self.uid)?;
        }
        Ok(tx.commit()?)
    }

    /// After an I/O error the connection may know less than the file: a new one reads it again.
    fn reconnect_after(&mut self, error: &StoreError) {
        if !matches!(error, StoreError::Io { .. }) && self.conn.is_autocommit() {
            return;
        }
        let fresh = disk::connect(&self.file).and_then(|conn| Ok((Ledger::read(&conn)?, conn)));
        match fresh {
            Ok((Some((ledger, _)), conn)) => (self.ledger, self.conn) = (ledger, conn),
            Ok((None, _)) => tracing::error!(file = %self.file.display(), "the ledger's row is damaged"),
            Err(error) => tracing::warn!(%error, file = %self.file.display(), "connecting again failed"),
        }
    }

    /// So that what is left is one file.
    fn end(self) {
        let checkpoint = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        if let Err(error) = checkpoint.and_then(|_| self.conn.close().map_err(|(_, error)| error)) {
            tracing::warn!(%error, file = %self.file.display(), "the last checkpoint is left to the next start");
        }
    }
}

/// A connection of its own for a long look at the whole file.
pub(super) fn look<T>(
    file: &Path,
    look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, Fault> {
    Ok(look(&disk::connect(file)?)?)
}
