//! One load of one Preload: works on the latest order, and publishes what it sees.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alluxio_preload_api::client::{Backoff, Client, Explanation, Update, WatchOptions, is_unreachable};
use alluxio_preload_api::v1::{self, ListFailuresRequest};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::{Code, Status};

use super::{Access, Key, convert};
use crate::{
    api::Failures,
    lease::Leadership,
    preload::{
        gates::Endpoint,
        load::{Answer, Contact, Seen},
        plan::{Intent, Order, Wish},
    },
};

/// Between two tries of whatever does not work; for ever, since only an order's end makes it pointless.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(250), max: Duration::from_secs(30), attempts: u32::MAX };
/// News of mere progress are told at most so often.
const PROGRESS_NEWS: Duration = Duration::from_millis(500);
/// A watch that was lost so often in a row is opened by a new client.
const NEW_CLIENT_AFTER: u32 = 3;
/// A sidecar that could not be reached so often in a row may lack its credentials.
const REPAIR_AFTER: u32 = 3;
/// Of a failed load, in the status.
const SHOWN_FAILURES: i32 = 10;

pub(super) struct Session {
    key: Key,
    orders: watch::Receiver<Order>,
    access: Arc<Access>,
    seen: Arc<Mutex<Seen>>,
    news: mpsc::UnboundedSender<Key>,
    told: Option<Instant>,
    /// Tries in a row that failed.
    failures: u32,
    /// The sidecar has acknowledged the load: StartLoad need not be called again.
    started: bool,
    /// A StartLoad whose outcome is not known: it may still become a load, whatever the sidecar says of its id.
    unresolved: Option<Box<Wish>>,
    leadership: Leadership,
    /// There is progress that was not told yet.
    untold: bool,
}

/// Why work on an order stopped.
enum Stop {
    /// There is another one, or none any more.
    Order,
    /// Nothing is left to do until there is.
    Idle,
    /// It did not work.
    Failed(Status),
}

impl Session {
    pub(super) fn new(
        key: Key,
        orders: watch::Receiver<Order>,
        access: Arc<Access>,
        seen: Arc<Mutex<Seen>>,
        news: mpsc::UnboundedSender<Key>,
        leadership: Leadership,
    ) -> Self {
        Self {
            key,
            orders,
            access,
            seen,
            news,
            told: None,
            failures: 0,
            started: false,
            unresolved: None,
            leadership,
            untold: false,
        }
    }

    /// Until there are no more orders.
    pub(super) async fn run(mut self) {
        let mut endpoint = self.orders.borrow().endpoint.clone();
        loop {
            let order = self.orders.borrow_and_update().clone();
            if order.endpoint != endpoint {
                // Another pod: nothing of what was seen is true of it.
                endpoint = order.endpoint.clone();
                self.started = false;
                self.unresolved = None;
                self.failures = 0;
                self.publish(Seen::default());
            }
            match self.work(&order).await {
                Stop::Order => {}
                Stop::Idle => {
                    if self.orders.changed().await.is_err() {
                        return;
                    }
                }
                Stop::Failed(status) => {
                    self.refused(&status);
                    self.repair(&order.endpoint, &status).await;
                    let pause = BACKOFF.random_delay(self.failures).unwrap_or(BACKOFF.max);
                    let asked = Explanation::of(&status).retry_after.unwrap_or_default().min(BACKOFF.max);
                    let pause = pause.max(asked);
                    self.failures = self.failures.saturating_add(1);
                    tokio::select! {
                        () = sleep(pause) => {}
                        changed = self.orders.changed() => if changed.is_err() { return },
                    }
                }
            }
            if self.orders.has_changed().is_err() {
                return;
            }
        }
    }

    /// A sidecar that does not accept us may have old credentials, and one that does not answer none yet.
    async fn repair(&self, endpoint: &Endpoint, status: &Status) {
        // The first refusal may be that of an old token: the next try shows the present one.
        let refused = status.code() == Code::Unauthenticated && self.failures > 0;
        if self.leadership.is_held() && (refused || self.failures >= REPAIR_AFTER) {
            Box::pin(self.access.repair(endpoint)).await;
        }
    }

    async fn work(&mut self, order: &Order) -> Stop {
        let client = match self.access.client(&order.endpoint) {
            Ok(client) => client,
            Err(error) => return Stop::Failed(Status::unauthenticated(error.to_string())),
        };
        match &order.intent {
            // Calls are boxed: what a session holds for months is its watch, and that is to be small.
            Intent::Start(wish) if !self.started => {
                match Box::pin(self.start(&client, order, wish.clone())).await {
                    None => self.watch(&client, order).await,
                    Some(stop) => stop,
                }
            }
            Intent::Start(_) | Intent::Look => self.watch(&client, order).await,
            Intent::Cancel => {
                if let Some(wish) = self.unresolved.clone()
                    && let Some(stop) = Box::pin(self.start(&client, order, wish)).await
                {
                    return stop;
                }
                if !self.leadership.is_held() {
                    return Stop::Failed(not_leading());
                }
                match Box::pin(client.cancel_load(&order.load_id)).await {
                    Ok(load) => {
                        self.show(&client, &load).await;
                        self.watch(&client, order).await
                    }
                    Err(status) => self.judge(status),
                }
            }
        }
    }

    /// Starts the load, or finds it started; otherwise says why work stops. Not raced against other orders:
    /// whether it was started must be known before it is cancelled.
    async fn start(&mut self, client: &Client, order: &Order, wish: Box<Wish>) -> Option<Stop> {
        if !self.leadership.is_held() {
            return Some(Stop::Failed(not_leading()));
        }
        let request = convert::request(&order.load_id, &wish);
        self.unresolved = Some(wish);
        match client.start_load(request).await {
            Ok(load) => {
                (self.started, self.unresolved) = (true, None);
                self.show(client, &load).await;
                None
            }
            Err(status) => {
                // An answer of the sidecar itself says that there is no load.
                if !is_unreachable(&status) {
                    self.unresolved = None;
                }
                Some(self.judge(status))
            }
        }
    }

    /// Follows the load until it is over, or the order changes into one that needs something else.
    async fn watch(&mut self, client: &Client, order: &Order) -> Stop {
        let follow = order.intent != Intent::Cancel;
        let options = WatchOptions { follow, backoff: BACKOFF, ..WatchOptions::default() };
        let mut watch = client.watch_load(&order.load_id, options);
        let mut lost = 0;
        loop {
            let update = tokio::select! {
                update = watch.next() => update,
                changed = self.orders.changed() => match changed {
                    Ok(()) if self.goes_on(&order.endpoint, follow) => continue,
                    Ok(()) | Err(_) => return Stop::Order,
                },
            };
            match update {
                Some(Ok(Update::Load(load))) => {
                    lost = 0;
                    self.started = true;
                    self.show(client, &load).await;
                }
                Some(Ok(Update::Lost { error, .. })) if lost < NEW_CLIENT_AFTER => {
                    lost += 1;
                    self.refused(&error);
                }
                // Certificates may have been rotated: begin with what the files hold now.
                Some(Ok(Update::Lost { error, .. })) => return Stop::Failed(error),
                Some(Err(status)) => return self.judge(status),
                None => return Stop::Idle,
            }
        }
    }

    /// The stream serves the new order, too: the same load, known to the sidecar, in the same place.
    fn goes_on(&mut self, endpoint: &Endpoint, follow: bool) -> bool {
        let order = self.orders.borrow_and_update();
        let same = match order.intent {
            Intent::Look => follow,
            Intent::Start(_) => follow && self.started,
            Intent::Cancel => false,
        };
        same && order.endpoint == *endpoint
    }

    /// A status that ended a call: final for the load, or worth another try.
    fn judge(&mut self, status: Status) -> Stop {
        let seen = convert::refusal(&status);
        if seen.answer == Answer::None {
            return Stop::Failed(status);
        }
        self.started = false;
        self.publish(seen);
        Stop::Idle
    }

    /// Tells that the sidecar is of no use now; what it said of the load before stays.
    fn refused(&mut self, status: &Status) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.contact = convert::refusal(status).contact;
        if seen.contact == Contact::Answering {
            seen.contact = Contact::Connecting;
        }
        self.publish(seen);
    }

    async fn show(&mut self, client: &Client, load: &v1::Load) {
        self.failures = 0;
        let failures = match (load.state(), load.failures) {
            (v1::load::State::Failed, count) if count > 0 => {
                Some(list_failures(client, &load.id, count).await)
            }
            _ => None,
        };
        let answer = Answer::Load(Box::new(convert::load(load, failures)));
        self.publish(Seen { contact: Contact::Answering, answer });
    }

    fn publish(&mut self, new: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == new && !self.untold {
            return;
        }
        let words =
            |seen: &Seen| seen.load().map(|load| (load.state, load.reason.clone(), load.message.clone()));
        let progress_only =
            words(&new).is_some() && words(&seen) == words(&new) && seen.contact == new.contact;
        *seen = new;
        drop(seen);
        let early = self.told.is_some_and(|told| told.elapsed() < PROGRESS_NEWS);
        self.untold = progress_only && early;
        if self.untold {
            return;
        }
        self.told = Some(Instant::now());
        // An error: the controller is stopping, and nobody wants to know.
        let _ = self.news.send(self.key.clone());
    }
}

/// Another replica decides now; this one ends soon.
fn not_leading() -> Status {
    Status::unavailable("this replica of the controller does not lead any more")
}

/// The first files that failed; without them when the sidecar does not answer again, since the count says it.
async fn list_failures(client: &Client, load_id: &str, count: u64) -> Failures {
    let request = ListFailuresRequest {
        load_id: load_id.to_owned(),
        page_size: SHOWN_FAILURES,
        page_token: String::new(),
    };
    match client.list_failures(request).await {
        Ok(answer) => convert::failures(answer),
        Err(error) => {
            tracing::warn!(load_id, %error, "the failures of a load could not be listed");
            Failures { count: i64::try_from(count).unwrap_or(i64::MAX), first: Vec::new() }
        }
    }
}
