//! Keeps the workers busy with the blocks that are missing, and gives a block that failed another try elsewhere.
//!
//! Invariants: a worker has a bounded number of requests and bytes in flight; about [`MOST_OPEN`] copies are open in
//! all; a copy that failed [`TRIES`] times is given up, and its file named.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use alluxio_client::{Client, UfsBlock, Worker, WorkerAddress};
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Done, Outcome, SMALL_BLOCK, Wish,
    backlog::MissingFile,
    placement::Placement,
    request::{Request, Trouble},
    source,
    throttle::Throttle,
};
use crate::{
    engine::{MAX_CAUSES, distributed_load::cause},
    gates,
};

/// Copies open at once, beyond which no further file is taken up.
const MOST_OPEN: usize = 4096;
/// Batches in flight per worker. More make a worker no faster, and each holds its bytes in the worker's memory.
const BATCHES: usize = 4;
/// Blocks and bytes of a batch.
const BATCH_BLOCKS: usize = 50;
const BATCH_BYTES: u64 = SMALL_BLOCK;
/// Single blocks in flight per worker; 16 were as good as 400 (2.9.3).
const SINGLES: usize = 16;
/// Bytes of them in flight per worker.
const SINGLES_BYTES: u64 = 256 << 20;

/// Times that a copy is tried, and the pause before the second; each pause is four times as long as the one before.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// Times that a worker which says that it still reads is asked again, each after 30 s of its own.
const PATIENCE: u32 = 40;
/// Between two looks at the workers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Dispatcher<'a> {
    client: &'a Client,
    wish: &'a Wish,
    done: &'a watch::Sender<Done>,
    placement: Placement,
    lanes: BTreeMap<i64, Lane>,
    throttle: Throttle,
    throttled: bool,
    /// The workers know the Load RPC.
    batches: bool,
    running: FuturesUnordered<BoxFuture<'a, Event>>,
    files: HashMap<u64, OpenFile>,
    next_file: u64,
    open: usize,
    outcome: Outcome,
}

/// One worker, and what it is going to be asked.
struct Lane {
    address: WorkerAddress,
    /// What it takes for its own host, as far as we know.
    source: String,
    queue: VecDeque<Copy>,
    requests: usize,
    bytes: u64,
    /// Ends what is in flight when the worker falls silent.
    alive: CancellationToken,
}

/// A copy of a block that some worker is to make.
#[derive(Debug)]
struct Copy {
    file: u64,
    block: UfsBlock,
    tries: u32,
    asked_again: u32,
}

/// A file of which copies are open.
#[derive(Debug)]
struct OpenFile {
    path: String,
    copies: usize,
    failed: bool,
    /// By block: workers that hold a copy, are going to, or failed to.
    workers: HashMap<i64, Vec<i64>>,
}

enum Event {
    Answered {
        worker: i64,
        copies: Vec<Copy>,
        bytes: u64,
        answer: Result<HashMap<i64, String>, Trouble>,
    },
    /// The pause of a copy that failed is over.
    Again(Copy),
    /// As the first, but the same worker goes on with it.
    AskAgain {
        worker: i64,
        copy: Copy,
    },
    Workers(Option<Vec<Worker>>),
    ThrottleOpened,
}

impl<'a> Dispatcher<'a> {
    pub(super) async fn new(client: &'a Client, wish: &'a Wish, done: &'a watch::Sender<Done>) -> Self {
        let sources = join_all(wish.workers.iter().map(|worker| source::guess(&worker.address))).await;
        let lanes = wish.workers.iter().zip(sources);
        Self {
            client,
            wish,
            done,
            placement: Placement::new(&wish.workers, &wish.held),
            lanes: lanes.map(|(worker, source)| (worker.id, Lane::new(&worker.address, source))).collect(),
            throttle: Throttle::new(wish.max_bytes_per_second),
            throttled: false,
            batches: true,
            running: FuturesUnordered::new(),
            files: HashMap::new(),
            next_file: 0,
            open: 0,
            outcome: Outcome::default(),
        }
    }

    /// Until every file was handed over, and all their copies were acknowledged or given up.
    pub(super) async fn run(mut self, mut files: mpsc::Receiver<MissingFile>) -> Outcome {
        self.look();
        let mut more = true;
        while more || self.open > 0 {
            self.send();
            tokio::select! {
                file = files.recv(), if more && self.open < MOST_OPEN => match file {
                    Some(file) => self.take_up(file),
                    None => more = false,
                },
                Some(event) = self.running.next() => self.on(event),
            }
        }
        self.outcome
    }

    fn take_up(&mut self, file: MissingFile) {
        let number = self.next_file;
        self.next_file += 1;
        let ufs_path: Arc<str> = file.ufs_path.into();
        let wished = usize::try_from(self.wish.replicas).unwrap_or(usize::MAX);
        let mut open = OpenFile {
            path: file.path,
            copies: 0,
            failed: false,
            workers: HashMap::with_capacity(file.blocks.len()),
        };
        let mut copies = Vec::new();
        for block in file.blocks {
            let lacking = wished.saturating_sub(block.holders.len());
            open.copies += lacking;
            open.workers.insert(block.id, block.holders);
            let ufs_path = ufs_path.clone();
            let block = UfsBlock {
                id: block.id,
                length: block.length,
                ufs_path,
                offset: block.offset,
                mount_id: file.mount_id,
            };
            copies.extend((0..lacking).map(|_| Copy {
                file: number,
                block: block.clone(),
                tries: 0,
                asked_again: 0,
            }));
        }
        self.open += copies.len();
        self.files.insert(number, open);
        copies.into_iter().for_each(|copy| self.place(copy));
    }

    /// Queues a copy with the worker that is to make it.
    fn place(&mut self, copy: Copy) {
        let Some(file) = self.files.get_mut(&copy.file) else { return };
        let workers = file.workers.entry(copy.block.id).or_default();
        match self.placement.place(copy.block.length, workers) {
            Some(worker) => {
                workers.push(worker);
                if let Some(lane) = self.lanes.get_mut(&worker) {
                    lane.queue.push_back(copy);
                }
            }
            None => self.give_up(&copy, "no live worker is left that could hold a further copy"),
        }
    }

    /// Sends what may be sent now.
    fn send(&mut self) {
        let now = Instant::now();
        for (&worker, lane) in &mut self.lanes {
            while let Some(batch) = lane.has_work(self.batches) {
                if let Some(opens) = self.throttle.opens(now) {
                    if !std::mem::replace(&mut self.throttled, true) {
                        let opened = tokio::time::sleep_until(opens.into()).map(|()| Event::ThrottleOpened);
                        self.running.push(opened.boxed());
                    }
                    return;
                }
                let (request, copies) = lane.next_request(batch);
                let bytes = request.bytes();
                self.throttle.pass(bytes, now);
                self.outcome.in_batches |= batch;
                lane.requests += 1;
                lane.bytes += bytes;
                let (client, address, alive) = (self.client, lane.address.clone(), lane.alive.clone());
                let answered = async move {
                    let answer = tokio::select! {
                        () = alive.cancelled() => Err(Trouble::Silent("the worker fell silent".to_owned())),
                        answer = request.send(client, &address) => answer,
                    };
                    Event::Answered { worker, copies, bytes, answer }
                };
                self.running.push(answered.boxed());
            }
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Answered { worker, copies, bytes, answer } => {
                if let Some(lane) = self.lanes.get_mut(&worker) {
                    lane.requests -= 1;
                    lane.bytes -= bytes;
                }
                self.answered(worker, copies, answer);
            }
            Event::Again(copy) => self.place(copy),
            Event::AskAgain { worker, copy } => match self.lanes.get_mut(&worker) {
                Some(lane) if self.placement.is_live(worker) => lane.queue.push_front(copy),
                _ => self.failed(worker, copy, "the worker fell silent"),
            },
            Event::Workers(workers) => {
                self.look();
                self.workers(workers);
            }
            Event::ThrottleOpened => self.throttled = false,
        }
    }

    fn answered(&mut self, worker: i64, copies: Vec<Copy>, answer: Result<HashMap<i64, String>, Trouble>) {
        match answer {
            Ok(failed) => {
                for copy in copies {
                    match failed.get(&copy.block.id) {
                        None => self.acknowledged(worker, &copy),
                        Some(why) => self.failed(worker, copy, why),
                    }
                }
            }
            Err(Trouble::Silent(why)) => {
                self.suspect(worker);
                copies.into_iter().for_each(|copy| self.failed(worker, copy, &why));
            }
            Err(Trouble::Unsupported) => {
                self.batches = false;
                if let Some(lane) = self.lanes.get_mut(&worker) {
                    copies.into_iter().rev().for_each(|copy| lane.queue.push_front(copy));
                }
            }
            Err(Trouble::StillReading) => {
                for mut copy in copies {
                    copy.asked_again += 1;
                    if copy.asked_again > PATIENCE {
                        self.failed(
                            worker,
                            copy,
                            "the worker reads it from the under file system for too long",
                        );
                    } else {
                        self.running
                            .push(sleep(PAUSE).map(move |()| Event::AskAgain { worker, copy }).boxed());
                    }
                }
            }
        }
    }

    fn acknowledged(&mut self, worker: i64, copy: &Copy) {
        let bytes = copy.block.length;
        *self.outcome.acknowledged.entry(worker).or_default() += bytes;
        let whole = self.close(copy.file);
        self.done.send_modify(|done| {
            done.bytes += bytes;
            done.files += u64::from(whole);
        });
    }

    /// Another try elsewhere after a pause, or none.
    fn failed(&mut self, worker: i64, mut copy: Copy, why: &str) {
        tracing::debug!(worker, block = copy.block.id, why, tries = copy.tries, "a block was not cached");
        self.placement.take_back(worker, copy.block.length);
        copy.tries += 1;
        if copy.tries >= TRIES {
            return self.give_up(&copy, &cause(why));
        }
        if let Some(workers) = self.files.get_mut(&copy.file).and_then(|f| f.workers.get_mut(&copy.block.id))
        {
            // Rather another one; where there is none, the same.
            let others = self.placement.another_than(workers);
            if !others {
                workers.retain(|other| *other != worker);
            }
        }
        let pause = PAUSE * 4_u32.pow(copy.tries - 1);
        self.running.push(sleep(pause).map(|()| Event::Again(copy)).boxed());
    }

    fn give_up(&mut self, copy: &Copy, why: &str) {
        if let Some(file) = self.files.get_mut(&copy.file) {
            file.failed = true;
            if self.outcome.causes.len() < MAX_CAUSES {
                self.outcome.causes.entry(file.path.clone()).or_insert_with(|| why.to_owned());
            }
        }
        self.close(copy.file);
    }

    /// One copy of a file is no longer open. True: it was the last, and all were made.
    fn close(&mut self, number: u64) -> bool {
        self.open -= 1;
        let Some(file) = self.files.get_mut(&number) else { return false };
        file.copies -= 1;
        if file.copies > 0 {
            return false;
        }
        self.files.remove(&number).is_some_and(|file| !file.failed)
    }

    /// Asks for the workers, after a while.
    fn look(&mut self) {
        let client = self.client;
        let workers = async move {
            sleep(LOOK_EVERY).await;
            Event::Workers(client.workers().await.ok())
        };
        self.running.push(workers.boxed());
    }

    /// `None`: the master is silent, which says nothing about its workers.
    fn workers(&mut self, workers: Option<Vec<Worker>>) {
        let Some(mut workers) = workers else { return };
        workers.retain(gates::is_live);
        for worker in self.placement.set_live(&workers) {
            self.abandon(worker);
        }
        for worker in &workers {
            let new = || Lane::new(&worker.address, worker.address.host.clone());
            self.lanes.entry(worker.id).or_insert_with(new);
        }
    }

    fn suspect(&mut self, worker: i64) {
        self.placement.suspect(worker);
        self.abandon(worker);
    }

    /// What it was asked, and was going to be, is for others.
    fn abandon(&mut self, worker: i64) {
        let Some(lane) = self.lanes.get_mut(&worker) else { return };
        std::mem::take(&mut lane.alive).cancel();
        for copy in std::mem::take(&mut lane.queue) {
            self.placement.take_back(worker, copy.block.length);
            self.place(copy);
        }
    }
}

impl Lane {
    fn new(address: &WorkerAddress, source: String) -> Self {
        Self {
            address: address.clone(),
            source,
            queue: VecDeque::new(),
            requests: 0,
            bytes: 0,
            alive: CancellationToken::new(),
        }
    }

    /// Whether the next copy may be sent now, and whether in a batch.
    fn has_work(&self, batches: bool) -> Option<bool> {
        let first = self.queue.front()?;
        let batch = batches && first.block.length <= SMALL_BLOCK;
        let free = if batch {
            self.requests < BATCHES
        } else {
            self.requests < SINGLES
                && (self.requests == 0 || self.bytes + first.block.length <= SINGLES_BYTES)
        };
        free.then_some(batch)
    }

    fn next_request(&mut self, batch: bool) -> (Request, Vec<Copy>) {
        let mut copies: Vec<Copy> = self.queue.pop_front().into_iter().collect();
        let Some(first) = copies.first() else { return (Request::Load(Vec::new()), copies) };
        if !batch {
            // The guess failed it, perhaps.
            let source = if first.tries == 0 { self.source.clone() } else { self.address.host.clone() };
            return (Request::Cache { block: first.block.clone(), source }, copies);
        }
        let mut bytes = first.block.length;
        while copies.len() < BATCH_BLOCKS
            && let Some(next) = self.queue.front()
            && bytes + next.block.length <= BATCH_BYTES
        {
            bytes += next.block.length;
            copies.extend(self.queue.pop_front());
        }
        (Request::Load(copies.iter().map(|copy| copy.block.clone()).collect()), copies)
    }
}
