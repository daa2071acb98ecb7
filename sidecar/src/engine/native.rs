//! Loads without a JVM and without a job service: asks the workers themselves to cache each block.
//!
//! `feed` lists what is missing, `placement` says which worker gets which block, `dispatch` keeps the workers busy,
//! `request` is one call to one of them. A load is one future: dropping it waits for no call any more. What a worker was
//! asked for it still does, some blocks at most: calls are not cut off, see `alluxio_client`.
//!
//! Invariants: blocks in flight per worker, blocks open in all, and the backlog are bounded, however long the listing;
//! an acknowledgement is a hint, and only verification says LOADED.

mod backlog;
mod dispatch;
mod feed;
mod lane;
pub mod lengths;
mod open_files;
mod placement;
mod request;
mod source;
mod throttle;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
};

use alluxio_client::{Client, Error, Worker};
use tokio::sync::{mpsc, watch};

use self::dispatch::Dispatcher;
use crate::job::AlluxioPath;

/// Files between the listing and the workers.
const HANDED_OVER: usize = 256;

/// Blocks up to this length are loaded in batches, longer ones one by one: a worker holds each block of a batch in
/// memory as a whole.
pub(super) const SMALL_BLOCK: u64 = 4 << 20;

/// What to load, and upon what knowledge.
#[derive(Debug, Clone)]
pub struct Wish {
    pub path: AlluxioPath,
    pub replicas: u32,
    /// Over all workers; `None`: no limit.
    pub max_bytes_per_second: Option<NonZeroU64>,
    /// Live workers, as of just now.
    pub workers: Vec<Worker>,
    /// Bytes of the path that each worker holds already.
    pub held: BTreeMap<i64, u64>,
    /// A full worker may make room by evicting what others have cached.
    pub evicts: bool,
    /// An earlier run has asked for it already: a worker that says it has a block which the master does not know is not
    /// believed.
    pub insist: bool,
}

/// What the workers have acknowledged so far, beyond what was cached before. Bytes count every copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Files of which every missing copy was acknowledged.
    pub files: u64,
    pub bytes: u64,
}

/// How a load ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Why files failed, by Alluxio path; of the first 10,000.
    pub causes: HashMap<String, String>,
    /// Bytes that each worker acknowledged.
    pub acknowledged: BTreeMap<i64, u64>,
    /// Some blocks were asked for in batches: their lengths are not proven yet (see `lengths`).
    pub in_batches: bool,
    /// Some requests were not answered, and may still be carried out.
    pub unanswered: bool,
}

/// Loads what is missing below the path, and returns when every block was acknowledged or given up. An error: the listing
/// broke, so that not everything was asked for.
pub async fn run(client: &Client, wish: &Wish, done: &watch::Sender<Done>) -> (Outcome, Result<(), Error>) {
    let (files, handed_over) = mpsc::channel(HANDED_OVER);
    let dispatcher = Dispatcher::new(client, wish, done).await;
    let (fed, mut outcome) = tokio::join!(feed::run(client, wish, files), dispatcher.run(handed_over));
    let listed = fed.map(|refused| outcome.causes.extend(refused));
    (outcome, listed)
}
