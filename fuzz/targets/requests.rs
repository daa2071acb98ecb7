//! Calls of hostile clients, through the real service, manager and store, beside an Alluxio that does not answer.
#![no_main]

mod call;
mod sidecar;

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use alluxio_preload_api::v1::{self, list_loads_request::Filter, preload_service_server::PreloadService};
use futures_util::StreamExt;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::{
    job::AlluxioPath,
    store::{ListQuery, Store},
};
use tonic::{Code, Request, Status};

use call::{Call, Wish, map, plain};
use sidecar::{LIMITS, RUNTIME, Sidecar, directory};

/// What the headers of an answer may hold so that every client takes them.
const HEADERS: usize = 4096;
/// Of one case: more teach nothing.
const CALLS: usize = 24;

/// Of a store without a load.
static EMPTY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = directory();
    RUNTIME.block_on(Store::open(dir.path()).expect("a new store").close());
    fs::read(dir.path().join("loads.sqlite3")).expect("a file")
});

/// A load that was acknowledged.
struct Known {
    uid: String,
    spec: v1::LoadSpec,
    /// Grows from load to load.
    number: usize,
}

/// Those that were acknowledged and not deleted.
#[derive(Default)]
struct Loads {
    known: BTreeMap<String, Known>,
    acknowledged: usize,
    deleted: usize,
    /// There were more at once than the sidecar remembers of finished ones.
    may_forget: bool,
}

fuzz_target!(|calls: Vec<Call>| {
    let dir = directory();
    fs::write(dir.path().join("loads.sqlite3"), &*EMPTY).expect("a file");
    RUNTIME.block_on(run(calls, dir.path()));
});

async fn run(calls: Vec<Call>, dir: &Path) {
    let mut sidecar = open(dir).await;
    let mut loads = Loads::default();
    let mut token = String::new();
    // Pages of different sizes.
    let page_size = i32::try_from(calls.len() % 3).expect("small") + 1;
    for call in calls.into_iter().take(CALLS) {
        let service = &sidecar.service;
        match call {
            Call::Start(id, path) => loads.start(service, id.text(), Some(plain(path))).await,
            Call::StartAny(id, wish) => loads.start(service, id.text(), wish.map(Wish::spec)).await,
            Call::Get(id) => loads.get(service, id.text()).await,
            Call::Watch { id, follow, after_sequence } => {
                let request = v1::WatchLoadRequest { load_id: id.text(), follow, after_sequence };
                if let Some(mut stream) = checked(service.watch_load(Request::new(request)).await) {
                    let first = stream.next().await.expect("the present state").expect("a load");
                    assert_eq!(first.id, id.text());
                }
            }
            Call::List { page_size, token: which, states, path, labels } => {
                let filter = Filter { states, path_prefix: path.text(), labels: map(labels) };
                let page_token = which.text(&token);
                let request = v1::ListLoadsRequest { page_size, page_token, filter: Some(filter) };
                if let Some(found) = checked(service.list_loads(Request::new(request.clone())).await) {
                    assert!(
                        page_size == 0 || found.loads.len() <= usize::try_from(page_size).expect("accepted")
                    );
                    loads.are_listed(&request, &found);
                    token = found.next_page_token;
                }
            }
            Call::Cancel(id) => {
                let request = v1::CancelLoadRequest { load_id: id.text() };
                drop(checked(service.cancel_load(Request::new(request)).await));
            }
            Call::Verify(id) => {
                let request = v1::VerifyLoadRequest { load_id: id.text() };
                drop(checked(service.verify_load(Request::new(request)).await));
            }
            Call::Failures { id, page_size, token: which } => {
                let page_token = which.text(&token);
                let request = v1::ListFailuresRequest { load_id: id.text(), page_size, page_token };
                if let Some(found) = checked(service.list_failures(Request::new(request)).await) {
                    token = found.next_page_token;
                }
            }
            Call::Delete(id) => {
                let request = v1::DeleteLoadRequest { load_id: id.text() };
                if checked(service.delete_load(Request::new(request)).await).is_some() {
                    assert!(loads.known.remove(&id.text()).is_some(), "deleted what nobody started");
                    loads.deleted += 1;
                }
            }
            Call::Restart => {
                sidecar.stop().await;
                sidecar = open(dir).await;
            }
        }
    }
    // Whatever happened: what was acknowledged is there, and survives.
    loads.are_all(&sidecar.service, page_size).await;
    sidecar.stop().await;
    loads.are_stored(dir).await;
}

async fn open(dir: &Path) -> Sidecar {
    Sidecar::start(Store::open(dir).expect("a store"), dir).await.expect("a sidecar")
}

impl Loads {
    async fn start(&mut self, service: &impl PreloadService, load_id: String, spec: Option<v1::LoadSpec>) {
        let request = v1::StartLoadRequest { load_id, spec };
        let Some(load) = checked(service.start_load(Request::new(request.clone())).await) else { return };
        assert!(request.load_id.is_empty() || request.load_id == load.id);
        let spec = load.spec.clone().expect("every load has a spec");
        match self.known.get(&load.id) {
            Some(known) if known.uid != load.uid => assert!(self.may_forget, "begun anew"),
            Some(known) => assert_eq!(known.spec, spec, "a second StartLoad changed the first"),
            None => {}
        }
        if self.known.get(&load.id).is_none_or(|known| known.uid != load.uid) {
            self.acknowledged += 1;
            let known = Known { uid: load.uid.clone(), spec: spec.clone(), number: self.acknowledged };
            self.known.insert(load.id.clone(), known);
            self.may_forget |= self.known.len() > LIMITS.retained;
        }
        // Defaults filled in, it is the same wish.
        let again = v1::StartLoadRequest { load_id: load.id, spec: Some(spec) };
        let again = checked(service.start_load(Request::new(again)).await);
        assert!(self.may_forget || again.is_some_and(|again| again.uid == load.uid), "the same wish again");
    }

    async fn get(&self, service: &impl PreloadService, load_id: String) {
        let request = v1::GetLoadRequest { load_id: load_id.clone() };
        match checked(service.get_load(Request::new(request)).await) {
            Some(load) => self.is_known(&load),
            None => assert!(self.may_forget || !self.known.contains_key(&load_id), "lost"),
        }
    }

    fn is_known(&self, load: &v1::Load) {
        let known = self.known.get(&load.id).expect("never started");
        assert_eq!((&known.uid, Some(&known.spec)), (&load.uid, load.spec.as_ref()), "another wish");
    }

    /// The loads that `request` asked for, newest first, if `found` ends the answer and each state will do.
    fn are_listed(&self, request: &v1::ListLoadsRequest, found: &v1::ListLoadsResponse) {
        found.loads.iter().for_each(|load| self.is_known(load));
        let filter = request.filter.clone().unwrap_or_default();
        let whole = request.page_token.is_empty() && found.next_page_token.is_empty();
        if self.may_forget || !whole || !filter.states.is_empty() {
            return;
        }
        let prefix = AlluxioPath::try_from(filter.path_prefix).ok();
        let wanted = |known: &Known| {
            prefix.as_ref().is_none_or(|prefix| prefix.contains(&known.spec.path))
                && filter.labels.iter().all(|(key, value)| known.spec.labels.get(key) == Some(value))
        };
        let mut wanted: Vec<_> = self.known.iter().filter(|(_, known)| wanted(known)).collect();
        wanted.sort_by_key(|(_, known)| std::cmp::Reverse(known.number));
        let ids = found.loads.iter().map(|load| &load.id);
        assert!(ids.eq(wanted.iter().map(|(id, _)| *id)), "not those that were asked for");
    }

    /// A store opens with all of them. That a sidecar comes up with it is for [`Call::Restart`] to try: a start costs as
    /// much as ten calls.
    async fn are_stored(&self, dir: &Path) {
        if self.known.is_empty() {
            return;
        }
        let store = Store::open(dir).expect("a store");
        let all = store.list(ListQuery { limit: usize::MAX, ..ListQuery::default() }).await.expect("a list");
        for (_, job) in &all {
            let known = self.known.get(job.id.as_str()).expect("never started");
            assert_eq!(known.uid, job.uid.to_string());
        }
        assert!(self.may_forget || all.len() == self.known.len(), "lost");
        store.close().await;
    }

    /// Listed without a filter, page by page, they are all there and no others; and so they are one by one.
    async fn are_all(&mut self, service: &impl PreloadService, page_size: i32) {
        let mut request = v1::ListLoadsRequest { page_size, ..v1::ListLoadsRequest::default() };
        let mut all = v1::ListLoadsResponse::default();
        loop {
            let page = checked(service.list_loads(Request::new(request.clone())).await).expect("a page");
            let full = usize::try_from(page_size) == Ok(page.loads.len());
            assert!(full || page.next_page_token.is_empty(), "a page that is not full, and others follow");
            all.loads.extend(page.loads);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        self.are_listed(&v1::ListLoadsRequest::default(), &all);
        // What is forgotten leaves so many behind; only a client deletes these.
        assert!(!self.may_forget || all.loads.len() + self.deleted >= LIMITS.retained, "forgot too much");
        for id in self.known.keys() {
            self.get(service, id.clone()).await;
        }
    }
}

/// The answer, or `None` for an error that a client can do something about.
fn checked<T>(answer: Result<tonic::Response<T>, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) => {
            let expected = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::AlreadyExists,
                Code::FailedPrecondition,
                Code::ResourceExhausted,
            ];
            assert!(expected.contains(&status.code()), "{status:?}");
            let size = status.message().len() + status.details().len();
            assert!(size <= HEADERS, "{size} bytes of headers");
            assert!(!status.message().is_empty());
            None
        }
    }
}
