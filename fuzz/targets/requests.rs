//! Calls of hostile clients, through the real service, manager and store, beside an Alluxio that does not answer.
#![no_main]

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use alluxio_preload_api::v1::{self, preload_service_server::PreloadService};
use arbitrary::Arbitrary;
use futures_util::StreamExt;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::{
    alluxio::{Alluxio, AlluxioConfig},
    clock::Clock,
    engine::memory::Heap,
    manager::{Limits, Manager},
    metrics::Metrics,
    service::{Backend, Service},
    store::Store,
};
use tokio::{runtime::Runtime, sync::watch};
use tonic::{Code, Request, Status};

/// What the headers of an answer may hold so that every client takes them.
const HEADERS: usize = 4096;
/// Loads at once; few, so that the limits are met.
const LIMITS: Limits = Limits {
    running: 2,
    queued: 3,
    retention: Duration::from_secs(3600),
    retained: 4,
    stall_after: Duration::from_secs(900),
};
/// Of one case: more teach nothing.
const CALLS: usize = 24;

#[derive(Arbitrary, Debug, Clone)]
enum Id {
    Known(u8),
    Given(String),
}

#[derive(Arbitrary, Debug, Clone)]
enum Text {
    Nothing,
    Short(String),
    /// One character, many times.
    Long(char, u16),
}

#[derive(Arbitrary, Debug, Clone)]
enum Path {
    Good(u8),
    Given(Text),
}

#[derive(Arbitrary, Debug, Clone)]
struct Span {
    seconds: i64,
    nanos: i32,
}

#[derive(Arbitrary, Debug, Clone)]
struct Wish {
    path: Path,
    replicas: Option<u32>,
    engine: i32,
    load_metadata: i32,
    min_workers: u32,
    allow_evict: bool,
    wait_timeout: Option<Span>,
    timeout: Option<Span>,
    max_attempts: u32,
    labels: Vec<(Text, Text)>,
    reverify_interval: Option<Span>,
    max_bytes_per_second: u64,
}

#[derive(Arbitrary, Debug, Clone)]
enum Token {
    Last,
    Given(Text),
}

#[derive(Arbitrary, Debug, Clone)]
enum Call {
    /// A plain wish that is accepted.
    Start(Id, u8),
    StartAny(Id, Option<Wish>),
    Get(Id),
    Watch {
        id: Id,
        follow: bool,
        after_sequence: u64,
    },
    List {
        page_size: i32,
        token: Token,
        states: Vec<i32>,
        path: Path,
        labels: Vec<(Text, Text)>,
    },
    Cancel(Id),
    Verify(Id),
    Failures {
        id: Id,
        page_size: i32,
        token: Token,
    },
    Delete(Id),
    /// The sidecar stops, and another takes over its store.
    Restart,
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|calls: Vec<Call>| RUNTIME.block_on(run(calls)));

async fn run(calls: Vec<Call>) {
    let dir =
        tempfile::Builder::new().prefix("preload-fuzz-").tempdir_in("/dev/shm").expect("room in /dev/shm");
    let mut sidecar = Sidecar::start(dir.path().into()).await;
    // Acknowledged and not deleted, as far as nobody else forgets them.
    let mut loads: HashMap<String, v1::LoadSpec> = HashMap::new();
    let mut token = String::new();
    for call in calls.into_iter().take(CALLS) {
        let service = &sidecar.service;
        match call {
            Call::Start(id, path) => start(service, id.text(), Some(plain(path)), &mut loads).await,
            Call::StartAny(id, wish) => start(service, id.text(), wish.map(Wish::spec), &mut loads).await,
            Call::Get(id) => {
                let request = v1::GetLoadRequest { load_id: id.text() };
                match checked(service.get_load(Request::new(request)).await) {
                    Some(load) => assert_eq!(load.spec.as_ref(), loads.get(&load.id), "another spec"),
                    None => assert!(!loads.contains_key(&id.text()), "lost"),
                }
            }
            Call::Watch { id, follow, after_sequence } => {
                let request = v1::WatchLoadRequest { load_id: id.text(), follow, after_sequence };
                if let Some(mut stream) = checked(service.watch_load(Request::new(request)).await) {
                    let first = stream.next().await.expect("the present state").expect("a load");
                    assert_eq!(first.id, id.text());
                }
            }
            Call::List { page_size, token: which, states, path, labels } => {
                let filter =
                    v1::list_loads_request::Filter { states, path_prefix: path.text(), labels: map(labels) };
                let page_token = which.text(&token);
                let request = v1::ListLoadsRequest { page_size, page_token, filter: Some(filter) };
                if let Some(found) = checked(service.list_loads(Request::new(request)).await) {
                    assert!(
                        page_size == 0 || found.loads.len() <= usize::try_from(page_size).expect("accepted")
                    );
                    assert!(found.loads.iter().all(|load| loads.contains_key(&load.id)), "never started");
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
                    assert!(loads.remove(&id.text()).is_some(), "deleted what nobody started");
                }
            }
            Call::Restart => {
                sidecar.stop().await;
                sidecar = Sidecar::start(dir.path().into()).await;
            }
        }
    }
    // Whatever happened: what was acknowledged is there, and survives.
    sidecar.stop().await;
    let sidecar = Sidecar::start(dir.path().into()).await;
    for (id, spec) in loads {
        let request = v1::GetLoadRequest { load_id: id };
        let load = checked(sidecar.service.get_load(Request::new(request)).await).expect("lost");
        assert_eq!(load.spec, Some(spec));
    }
    sidecar.stop().await;
}

async fn start(
    service: &Service,
    load_id: String,
    spec: Option<v1::LoadSpec>,
    loads: &mut HashMap<String, v1::LoadSpec>,
) {
    let request = v1::StartLoadRequest { load_id, spec };
    if let Some(load) = checked(service.start_load(Request::new(request.clone())).await) {
        assert!(request.load_id.is_empty() || request.load_id == load.id);
        let spec = load.spec.expect("every load has a spec");
        let known = loads.entry(load.id.clone()).or_insert_with(|| spec.clone());
        assert_eq!(*known, spec, "a second StartLoad changed the first");
        // Defaults filled in, it is the same wish.
        let again = v1::StartLoadRequest { load_id: load.id.clone(), spec: Some(spec) };
        let again = checked(service.start_load(Request::new(again)).await).expect("the same wish again");
        assert_eq!(again.uid, load.uid);
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

struct Sidecar {
    service: Service,
    manager: Manager,
    store: Store,
}

impl Sidecar {
    async fn start(dir: PathBuf) -> Self {
        let store = Store::open(&dir).expect("a store");
        let config = AlluxioConfig {
            script: Some("/nonexistent".into()),
            // Nobody listens there.
            masters: vec!["127.0.0.1:1".to_owned()],
            job_masters: vec!["127.0.0.1:1".to_owned()],
            user: Some("nobody".to_owned()),
            work_directory: dir,
            heap: Heap::under(None, LIMITS.running),
        };
        let alluxio = Arc::new(Alluxio::new(config, store.uid()));
        let metrics = Metrics::new();
        let manager = Manager::start(store.clone(), alluxio, Clock::system(), LIMITS, metrics.clone()).await;
        let manager = manager.expect("a manager");
        let (_, backend) = watch::channel(Backend::Ready(manager.clone()));
        Self { service: Service::new(backend, metrics), manager, store }
    }

    async fn stop(self) {
        self.manager.shut_down().await;
        self.store.close().await;
    }
}

fn plain(path: u8) -> v1::LoadSpec {
    v1::LoadSpec { path: Path::Good(path).text(), ..v1::LoadSpec::default() }
}

fn map(labels: Vec<(Text, Text)>) -> HashMap<String, String> {
    // In the order of their keys, so that a case is always the same.
    let sorted: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.text(), value.text())).collect();
    sorted.into_iter().collect()
}

impl Id {
    fn text(&self) -> String {
        match self {
            Id::Known(number) => format!("load-{}", number % 6),
            Id::Given(text) => text.clone(),
        }
    }
}

impl Text {
    fn text(self) -> String {
        match self {
            Text::Nothing => String::new(),
            Text::Short(text) => text,
            Text::Long(character, times) => {
                character.to_string().repeat(usize::from(times) / character.len_utf8())
            }
        }
    }
}

impl Path {
    fn text(self) -> String {
        match self {
            Path::Good(number) => ["/", "/a", "/a/b", "/a/c", "/ab"][usize::from(number) % 5].to_owned(),
            Path::Given(text) => text.text(),
        }
    }
}

impl Token {
    fn text(self, last: &str) -> String {
        match self {
            Token::Last => last.to_owned(),
            Token::Given(text) => text.text(),
        }
    }
}

impl Wish {
    fn spec(self) -> v1::LoadSpec {
        let span =
            |span: Option<Span>| span.map(|s| prost_types::Duration { seconds: s.seconds, nanos: s.nanos });
        v1::LoadSpec {
            path: self.path.text(),
            replicas: self.replicas,
            engine: self.engine,
            load_metadata: self.load_metadata,
            min_workers: self.min_workers,
            allow_evict: self.allow_evict,
            wait_timeout: span(self.wait_timeout),
            timeout: span(self.timeout),
            max_attempts: self.max_attempts,
            labels: map(self.labels),
            reverify_interval: span(self.reverify_interval),
            max_bytes_per_second: self.max_bytes_per_second,
        }
    }
}
