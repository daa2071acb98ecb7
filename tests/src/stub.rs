//! Many sidecars in one thread, played: the only stub of the project, for the tests of scale, where real ones
//! would take gigabytes. What a sidecar says of data is not to be learned here.
//!
//! Each sidecar has an address of its own, and loads of its own, which advance by a script as time goes by.
//!
//! Invariants: StartLoad is idempotent by id; a watch tells the present state at once, then each change, and
//! the last again after 15 s; nothing is left when the [`Stub`] is dropped.

mod load;

use crate::certificates::Identity;
use crate::sandbox::Sandbox;
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::preload_service_server::{PreloadService, PreloadServiceServer};
use alluxio_preload_api::v1::{
    CancelLoadRequest, DeleteLoadRequest, GetLoadRequest, ListFailuresRequest, ListFailuresResponse,
    ListLoadsRequest, ListLoadsResponse, Load, StartLoadRequest, VerifyLoadRequest, WatchLoadRequest,
};
use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt, future, stream};
use load::{enter, play, told};
use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Last octet of the address that all of them share.
const HOST: usize = 10;

/// How a sidecar behaves.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Its loads pass through these states, and stay in each for so long; in the last for ever.
    Loads(Vec<(State, Duration)>),
    /// Connections come about, and nothing is ever answered: as of a process that was stopped.
    Hangs,
}

impl Behaviour {
    /// From QUEUED to LOADED, with so long a time in LOADING.
    pub fn loads_within(loading: Duration) -> Self {
        let short = Duration::from_millis(50);
        Self::Loads(vec![
            (State::Queued, Duration::ZERO),
            (State::Listing, short),
            (State::Loading, loading),
            (State::Verifying, short),
            (State::Loaded, Duration::ZERO),
        ])
    }

    /// Hours in LOADING, with progress.
    pub fn never_ends() -> Self {
        Self::loads_within(Duration::from_secs(24 * 3600))
    }
}

/// A StartLoad that has come in.
#[derive(Debug, Clone)]
pub struct Start {
    pub at: Instant,
    /// Which of the sidecars it went to.
    pub sidecar: usize,
    pub load_id: String,
    /// Of the Preload, as the labels say.
    pub namespace: String,
    pub name: String,
}

/// See the module. It has a thread of its own, so that it answers while a test computes.
#[derive(Debug)]
pub struct Stub {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Of those that hang: the kernel takes the connections.
    _silent: Vec<TcpListener>,
}

impl Stub {
    /// One sidecar for each behaviour, on the network of `sandbox`; with `identity` all speak TLS.
    pub fn start(
        sandbox: &Sandbox,
        behaviours: impl IntoIterator<Item = Behaviour>,
        identity: Option<&Identity>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("make a runtime")?;
        // Listeners belong to the runtime that they are made in.
        let inside = runtime.enter();
        let (mut addresses, mut scripts) = (Vec::new(), HashMap::new());
        let (mut listeners, mut silent) = (Vec::new(), Vec::new());
        for behaviour in behaviours {
            let listener = TcpListener::bind(format!("{}:0", sandbox.address(HOST))).context("listen")?;
            let address = listener.local_addr().context("ask for the address")?;
            match behaviour {
                Behaviour::Hangs => silent.push(listener),
                Behaviour::Loads(script) => {
                    scripts.insert(address, Sidecar { number: addresses.len(), script: script.into() });
                    listener.set_nonblocking(true).context("listen")?;
                    let listener = tokio::net::TcpListener::from_std(listener).context("listen")?;
                    listeners.push(TcpListenerStream::new(listener));
                }
            }
            addresses.push(address);
        }
        drop(inside);
        let shared = Arc::new(Shared { sidecars: scripts, seen: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let service = PreloadServiceServer::new(Service(shared.clone()));
        let mut server = Server::builder();
        if let Some(Identity { certificate, key }) = identity {
            let read = |path| fs::read(path).context("read the identity");
            let identity = tonic::transport::Identity::from_pem(read(certificate)?, read(key)?);
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).context("use TLS")?;
        }
        let serving = async move {
            let connections = stream::select_all(listeners).map(|connection| {
                connection.and_then(|connection| connection.set_nodelay(true).map(|()| connection))
            });
            let serving = std::pin::pin!(server.add_service(service).serve_with_incoming(connections));
            // Open watches would make a graceful end wait for ever.
            future::select(serving, stopped).await;
        };
        let thread = std::thread::Builder::new().name("sidecars".to_owned());
        let thread = thread.spawn(move || runtime.block_on(serving)).context("start a thread")?;
        Ok(Self { addresses, shared, stop: Some(stop), thread: Some(thread), _silent: silent })
    }

    /// `IP:PORT` of one of them.
    pub fn address(&self, sidecar: usize) -> Result<String> {
        self.addresses.get(sidecar).map(SocketAddr::to_string).context("there is no such sidecar")
    }

    /// Every StartLoad so far, oldest first.
    pub fn starts(&self) -> Vec<Start> {
        self.shared.seen().starts.clone()
    }

    /// How often each load was asked to be watched, by id.
    pub fn watches(&self) -> HashMap<String, u64> {
        self.shared.seen().watches.clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // Errors: the thread has ended already, which is what is wanted.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[derive(Debug)]
struct Sidecar {
    number: usize,
    script: Arc<[(State, Duration)]>,
}

#[derive(Debug)]
struct Shared {
    sidecars: HashMap<SocketAddr, Sidecar>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By the address of the sidecar, and id.
    loads: HashMap<(SocketAddr, String), Arc<watch::Sender<Load>>>,
    starts: Vec<Start>,
    watches: HashMap<String, u64>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Service(Arc<Shared>);

fn address<T>(request: &Request<T>) -> Result<SocketAddr, Status> {
    request.local_addr().ok_or_else(|| Status::internal("a connection without an address"))
}

impl Service {
    fn load<T>(&self, request: &Request<T>, id: &str) -> Result<Arc<watch::Sender<Load>>, Status> {
        let load = self.0.seen().loads.get(&(address(request)?, id.to_owned())).cloned();
        load.ok_or_else(|| Status::not_found(format!("there is no load {id}")))
    }
}

#[tonic::async_trait]
impl PreloadService for Service {
    type WatchLoadStream = Pin<Box<dyn Stream<Item = Result<Load, Status>> + Send>>;

    async fn start_load(&self, request: Request<StartLoadRequest>) -> Result<Response<Load>, Status> {
        let (at, address) = (Instant::now(), address(&request)?);
        let StartLoadRequest { load_id, spec } = request.into_inner();
        let sidecar =
            self.0.sidecars.get(&address).ok_or_else(|| Status::internal("there is no such sidecar"))?;
        let label = |key: &str| spec.as_ref().and_then(|spec| spec.labels.get(key)).cloned();
        let mut seen = self.0.seen();
        seen.starts.push(Start {
            at,
            sidecar: sidecar.number,
            load_id: load_id.clone(),
            namespace: label("preload.dev/namespace").unwrap_or_default(),
            name: label("preload.dev/name").unwrap_or_default(),
        });
        if let Some(load) = seen.loads.get(&(address, load_id.clone())) {
            return Ok(Response::new(load.borrow().clone()));
        }
        let load = Load {
            id: load_id.clone(),
            uid: Uuid::new_v4().to_string(),
            spec,
            sequence: 1,
            create_time: Some(SystemTime::now().into()),
            ..Load::default()
        };
        let load = Arc::new(watch::Sender::new(load));
        seen.loads.insert((address, load_id), load.clone());
        drop(seen);
        if let Some((first, _)) = sidecar.script.first() {
            enter(&load, *first);
        }
        let begun = load.borrow().clone();
        tokio::spawn(play(load, sidecar.script.clone()));
        Ok(Response::new(begun))
    }

    async fn get_load(&self, request: Request<GetLoadRequest>) -> Result<Response<Load>, Status> {
        let load = self.load(&request, &request.get_ref().load_id)?;
        Ok(Response::new(load.borrow().clone()))
    }

    async fn watch_load(
        &self,
        request: Request<WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        let load = self.load(&request, &request.get_ref().load_id)?;
        let WatchLoadRequest { load_id, after_sequence: _, follow } = request.into_inner();
        *self.0.seen().watches.entry(load_id).or_default() += 1;
        Ok(Response::new(Box::pin(told(load.subscribe(), follow))))
    }

    /// All on one page: nobody asks for so many that it would not do.
    async fn list_loads(
        &self,
        request: Request<ListLoadsRequest>,
    ) -> Result<Response<ListLoadsResponse>, Status> {
        let address = address(&request)?;
        let seen = self.0.seen();
        let own = seen.loads.iter().filter(|((other, _), _)| *other == address);
        let loads = own.map(|(_, load)| load.borrow().clone()).collect();
        Ok(Response::new(ListLoadsResponse { loads, next_page_token: String::new() }))
    }

    async fn cancel_load(&self, request: Request<CancelLoadRequest>) -> Result<Response<Load>, Status> {
        let load = self.load(&request, &request.get_ref().load_id)?;
        enter(&load, State::Cancelled);
        Ok(Response::new(load.borrow().clone()))
    }

    /// Nothing leaves a cache that is not there.
    async fn verify_load(&self, request: Request<VerifyLoadRequest>) -> Result<Response<Load>, Status> {
        let load = self.load(&request, &request.get_ref().load_id)?;
        Ok(Response::new(load.borrow().clone()))
    }

    /// No load fails here.
    async fn list_failures(
        &self,
        request: Request<ListFailuresRequest>,
    ) -> Result<Response<ListFailuresResponse>, Status> {
        self.load(&request, &request.get_ref().load_id)?;
        Ok(Response::new(ListFailuresResponse::default()))
    }

    async fn delete_load(&self, request: Request<DeleteLoadRequest>) -> Result<Response<()>, Status> {
        let load = self.load(&request, &request.get_ref().load_id)?;
        if !is_terminal(load.borrow().state(), false) {
            return Err(Status::failed_precondition("the load runs"));
        }
        let key = (address(&request)?, request.into_inner().load_id);
        self.0.seen().loads.remove(&key);
        Ok(Response::new(()))
    }
}
