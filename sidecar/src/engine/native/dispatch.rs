//! Keeps the workers busy with the blocks that are missing, and gives a block that failed another try elsewhere.
//!
//! Invariants: a worker has a bounded number of requests and bytes in flight; about [`MOST_OPEN`] copies are open in
//! all; a copy that failed [`TRIES`] times is given up, and its file named.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use alluxio_client::{Client, UfsBlock, Worker};
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    Done, Outcome, Wish,
    backlog::MissingFile,
    lane::{Copy, Lane},
    open_files::OpenFiles,
    placement::{LOOKS, Placement},
    request::{Insist, Trouble, is_being_made},
    source,
    throttle::Throttle,
};
use crate::{
    engine::{MAX_CAUSES, distributed_load::cause},
    gates,
};

/// Copies open at once, beyond which no further file is taken up.
const MOST_OPEN: usize = 4096;
/// Times that a copy is tried, and the pause before the second; each pause is four times as long as the one before.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// Times that a worker which says that it still reads is asked again, each after 30 s of its own.
const PATIENCE: u32 = 40;
/// Before a worker is asked again that makes the block for somebody else, which takes it 2 minutes at most.
const MADE_PAUSE: Duration = Duration::from_secs(4);
/// Without any live worker for so long a load ends, and what is missing waits at a gate.
const DARK: Duration = Duration::from_secs(30);
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
    /// Who was served last, so that the next is served first when bandwidth is short.
    served: Option<i64>,
    /// Since when no worker has been live.
    dark_since: Option<Instant>,
    /// The workers know the Load RPC.
    batches: bool,
    running: FuturesUnordered<BoxFuture<'a, Event>>,
    files: OpenFiles,
    outcome: Outcome,
}

enum Event {
    Answered {
        worker: i64,
        batch: bool,
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
            placement: Placement::new(&wish.workers, &wish.held, wish.evicts),
            lanes: lanes.map(|(worker, source)| (worker.id, Lane::new(&worker.address, source))).collect(),
            throttle: Throttle::new(wish.max_bytes_per_second),
            throttled: false,
            served: None,
            dark_since: None,
            batches: true,
            running: FuturesUnordered::new(),
            files: OpenFiles::default(),
            outcome: Outcome::default(),
        }
    }

    /// Until every file was handed over, and all their copies were acknowledged or given up.
    pub(super) async fn run(mut self, mut files: mpsc::Receiver<MissingFile>) -> Outcome {
        self.look();
        let mut more = true;
        while more || self.files.copies() > 0 {
            self.send();
            if self.dark_since.is_some_and(|since| since.elapsed() > DARK) {
                tracing::warn!("no worker is live; the load is left to verification");
                self.outcome.unanswered = true;
                break;
            }
            let takes_up = more && self.dark_since.is_none() && self.files.copies() < MOST_OPEN;
            tokio::select! {
                file = files.recv(), if takes_up => match file {
                    Some(file) => self.take_up(file),
                    None => more = false,
                },
                Some(event) = self.running.next() => self.on(event),
            }
        }
        self.outcome
    }

    fn take_up(&mut self, file: MissingFile) {
        let ufs_path: Arc<str> = file.ufs_path.into();
        let wished = usize::try_from(self.wish.replicas).unwrap_or(usize::MAX);
        let (mut blocks, mut holders) = (Vec::new(), HashMap::with_capacity(file.blocks.len()));
        for block in file.blocks {
            let (id, length, offset, block_holders) = (block.id, block.length, block.offset, block.holders);
            let lacking = wished.saturating_sub(block_holders.len());
            let block = UfsBlock { id, length, ufs_path: ufs_path.clone(), offset, mount_id: file.mount_id };
            blocks.extend(std::iter::repeat_n(block, lacking));
            holders.insert(id, block_holders);
        }
        let number = self.files.open(file.path, blocks.len(), holders);
        blocks.into_iter().for_each(|block| self.place(Copy::new(number, block)));
    }

    /// Queues a copy with the worker that is to make it.
    fn place(&mut self, mut copy: Copy) {
        let Some(workers) = self.files.workers(copy.file, copy.block.id) else { return };
        match self.placement.place(copy.block.length, workers) {
            Some(worker) => {
                workers.push(worker);
                match self.lanes.get_mut(&worker) {
                    Some(lane) => lane.queue.push_back(copy),
                    None => self.give_up(&copy, "the worker that was to hold it is not known"),
                }
            }
            None if self.placement.may_improve() && copy.waits < LOOKS => {
                copy.waits += 1;
                self.running.push(sleep(LOOK_EVERY).map(|()| Event::Again(copy)).boxed());
            }
            None if self.placement.another_than(workers) => {
                self.give_up(&copy, "no worker has room for it, and the spec does not allow to evict");
            }
            None => self.give_up(&copy, "no live worker is left that could hold a further copy"),
        }
    }

    /// Sends what may be sent now.
    fn send(&mut self) {
        let now = Instant::now();
        for worker in turn(&self.lanes, self.served) {
            while let Some(lane) = self.lanes.get_mut(&worker)
                && let Some(batch) = lane.has_work(self.batches)
            {
                if let Some(opens) = self.throttle.opens(now) {
                    if !std::mem::replace(&mut self.throttled, true) {
                        let opened = tokio::time::sleep_until(opens.into()).map(|()| Event::ThrottleOpened);
                        self.running.push(opened.boxed());
                    }
                    return;
                }
                let (request, copies) = lane.next_request(batch);
                let bytes = request.bytes();
                // Those that are asked for again were paid for.
                let new = copies.iter().filter(|copy| copy.asked_again == 0);
                self.throttle.pass(new.map(|copy| copy.block.length).fold(0, u64::saturating_add), now);
                self.served = Some(worker);
                if batch {
                    self.outcome.in_batches = true;
                    self.outcome.acknowledged.entry(worker).or_default();
                }
                lane.requests += 1;
                lane.bytes += bytes;
                let (client, address, alive) = (self.client, lane.address.clone(), lane.alive.clone());
                let insist = self.wish.insist.then(|| {
                    let path = |copy: &Copy| Some((copy.block.id, self.files.path(copy.file)?.to_owned()));
                    Insist { worker, paths: copies.iter().filter_map(path).collect() }
                });
                let answered = async move {
                    let answer = tokio::select! {
                        () = alive.cancelled() => Err(Trouble::CutOff),
                        answer = request.send(client, &address, insist.as_ref()) => answer,
                    };
                    Event::Answered { worker, batch, copies, bytes, answer }
                };
                self.running.push(answered.boxed());
            }
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Answered { worker, batch, copies, bytes, answer } => {
                if let Some(lane) = self.lanes.get_mut(&worker) {
                    lane.requests -= 1;
                    lane.bytes -= bytes;
                }
                // Where others were in flight when the first was refused, these are too.
                if batch && answer == Err(Trouble::Unsupported) {
                    self.batches = false;
                    return self.send_again(worker, copies);
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
                        Some(why) if is_being_made(why) && !self.may_go_elsewhere(&copy) => {
                            self.ask_again(worker, copy, MADE_PAUSE, why);
                        }
                        Some(why) => self.failed(worker, copy, why),
                    }
                }
            }
            Err(Trouble::CutOff) => {
                self.outcome.unanswered = true;
                copies.into_iter().for_each(|copy| self.hand_over(worker, copy));
            }
            Err(Trouble::Silent(why)) => {
                self.outcome.unanswered = true;
                self.suspect(worker);
                copies.into_iter().for_each(|copy| self.failed(worker, copy, &why));
            }
            Err(Trouble::Unsupported) => {
                let why = "the worker cannot be asked for it";
                copies.into_iter().for_each(|copy| self.failed(worker, copy, why));
            }
            Err(Trouble::StillReading) => {
                let why = "the worker reads it from the under file system for too long";
                copies.into_iter().for_each(|copy| self.ask_again(worker, copy, PAUSE, why));
            }
        }
    }

    /// The same worker, one by one. It may have fallen silent meanwhile.
    fn send_again(&mut self, worker: i64, copies: Vec<Copy>) {
        match self.lanes.get_mut(&worker) {
            Some(lane) if self.placement.is_live(worker) => {
                copies.into_iter().rev().for_each(|copy| lane.queue.push_front(copy));
            }
            _ => copies.into_iter().for_each(|copy| self.hand_over(worker, copy)),
        }
    }

    /// The same worker, after `pause`. `why`: what is wrong when it has been asked too often.
    fn ask_again(&mut self, worker: i64, mut copy: Copy, pause: Duration, why: &str) {
        copy.asked_again += 1;
        if copy.asked_again > PATIENCE {
            return self.failed(worker, copy, why);
        }
        self.running.push(sleep(pause).map(move |()| Event::AskAgain { worker, copy }).boxed());
    }

    fn may_go_elsewhere(&mut self, copy: &Copy) -> bool {
        let workers = self.files.workers(copy.file, copy.block.id);
        workers.is_some_and(|workers| self.placement.another_than(workers))
    }

    fn acknowledged(&mut self, worker: i64, copy: &Copy) {
        let bytes = copy.block.length;
        let acknowledged = self.outcome.acknowledged.entry(worker).or_default();
        *acknowledged = acknowledged.saturating_add(bytes);
        let whole = self.files.made(copy.file);
        self.done.send_modify(|done| {
            done.bytes = done.bytes.saturating_add(bytes);
            done.files += u64::from(whole);
        });
    }

    /// Another try elsewhere after a pause, or none.
    fn failed(&mut self, worker: i64, mut copy: Copy, why: &str) {
        tracing::debug!(worker, block = copy.block.id, why, tries = copy.tries, "a block was not cached");
        self.placement.take_back(worker, copy.block.length);
        copy.asked_again = 0;
        copy.tries += 1;
        if copy.tries >= TRIES {
            return self.give_up(&copy, &cause(why));
        }
        if let Some(workers) = self.files.workers(copy.file, copy.block.id) {
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
        if let Some(path) = self.files.give_up(copy.file)
            && self.outcome.causes.len() < MAX_CAUSES
        {
            self.outcome.causes.insert(path, why.to_owned());
        }
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

    /// `None`: the master is silent, which says nothing about its workers. Neither does one that has just started, and
    /// does not know them yet: what they were asked they go on with, and a call that is cut off does harm.
    fn workers(&mut self, workers: Option<Vec<Worker>>) {
        let Some(mut workers) = workers else { return };
        let known: Vec<i64> = workers.iter().map(|worker| worker.id).collect();
        workers.retain(gates::is_live);
        // Before anything is handed on, which may be to a new one.
        for worker in &workers {
            let new = || Lane::new(&worker.address, worker.address.host.clone());
            self.lanes.entry(worker.id).or_insert_with(new);
        }
        for worker in self.placement.set_live(&workers, &known) {
            if known.contains(&worker) {
                self.abandon(worker);
            } else {
                self.hand_on(worker);
            }
        }
        self.note_dark();
    }

    fn note_dark(&mut self) {
        self.dark_since = match self.placement.any_live() {
            true => None,
            false => self.dark_since.or_else(|| Some(Instant::now())),
        };
    }

    fn suspect(&mut self, worker: i64) {
        self.placement.suspect(worker);
        self.note_dark();
        self.abandon(worker);
    }

    /// What it was asked, and was going to be, is for others.
    fn abandon(&mut self, worker: i64) {
        if let Some(lane) = self.lanes.get_mut(&worker) {
            std::mem::take(&mut lane.alive).cancel();
        }
        self.hand_on(worker);
    }

    /// What it was going to be asked is for others.
    fn hand_on(&mut self, worker: i64) {
        let Some(lane) = self.lanes.get_mut(&worker) else { return };
        for copy in std::mem::take(&mut lane.queue) {
            self.hand_over(worker, copy);
        }
    }

    /// Not a failure of the copy: `worker` may get it again.
    fn hand_over(&mut self, worker: i64, mut copy: Copy) {
        self.placement.take_back(worker, copy.block.length);
        copy.asked_again = 0;
        copy.handed_over += 1;
        if copy.handed_over > PATIENCE {
            return self.give_up(&copy, "its workers fell silent again and again");
        }
        if let Some(workers) = self.files.workers(copy.file, copy.block.id) {
            workers.retain(|other| *other != worker);
        }
        self.place(copy);
    }
}

/// All workers, beginning with the one after `served`.
fn turn<T>(lanes: &BTreeMap<i64, T>, served: Option<i64>) -> Vec<i64> {
    let (first, second): (Vec<i64>, Vec<i64>) =
        lanes.keys().partition(|id| served.is_none_or(|served| **id > served));
    first.into_iter().chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_its_turn() {
        let lanes = BTreeMap::from([(-5, ()), (2, ()), (9, ())]);
        assert_eq!(turn(&lanes, None), [-5, 2, 9]);
        assert_eq!(turn(&lanes, Some(-5)), [2, 9, -5]);
        assert_eq!(turn(&lanes, Some(2)), [9, -5, 2]);
        assert_eq!(turn(&lanes, Some(9)), [-5, 2, 9]);
    }
}
