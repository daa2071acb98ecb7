//! A PreloadService that answers what the test says, and can die like a killed process.
//!
//! It runs on a thread and runtime of its own. To die is to drop that runtime: every socket is closed at
//! once, and a new life begins at the same address. Dropping [`Server`] ends it for good.

use alluxio_preload_api::v1::{
    preload_service_server::{PreloadService, PreloadServiceServer},
    *,
};
use std::{
    os::unix::net as os,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{net, runtime, sync::Notify};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, transport::ServerTlsConfig};

/// One line of what a WatchLoad stream does. After the last one the stream ends without an error.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Box<Load>),
    Fail(Status),
    /// Kills the server; it starts again by itself.
    Die,
    /// Goes on when the test says so.
    Wait(Arc<Notify>),
    /// Says nothing more, and keeps the stream open.
    Hang,
}

/// A step for each of these loads.
pub(crate) fn sends(loads: &[Load]) -> Vec<Step> {
    loads.iter().cloned().map(Box::new).map(Step::Send).collect()
}

/// Gets the number of the call (from 0, over all lives) and the request.
type Answer<Q, R> = Box<dyn Fn(usize, Request<Q>) -> Result<R, Status> + Send + Sync>;

/// What each method answers.
pub(crate) struct Script {
    pub(crate) start: Answer<StartLoadRequest, Load>,
    pub(crate) get: Answer<GetLoadRequest, Load>,
    pub(crate) watch: Answer<WatchLoadRequest, Vec<Step>>,
    pub(crate) list: Answer<ListLoadsRequest, ListLoadsResponse>,
    pub(crate) cancel: Answer<CancelLoadRequest, Load>,
    pub(crate) verify: Answer<VerifyLoadRequest, Load>,
    pub(crate) failures: Answer<ListFailuresRequest, ListFailuresResponse>,
    pub(crate) delete: Answer<DeleteLoadRequest, ()>,
}

impl Default for Script {
    /// A call that the test did not expect.
    fn default() -> Self {
        fn unexpected<Q: std::fmt::Debug, R>() -> Answer<Q, R> {
            Box::new(|_, request| Err(Status::data_loss(format!("unexpected: {:?}", request.get_ref()))))
        }
        Self {
            start: unexpected(),
            get: unexpected(),
            watch: unexpected(),
            list: unexpected(),
            cancel: unexpected(),
            verify: unexpected(),
            failures: unexpected(),
            delete: unexpected(),
        }
    }
}

enum Order {
    Die,
    Stop,
}

struct Service {
    script: Script,
    calls: [AtomicUsize; 8],
    orders: mpsc::Sender<Order>,
}

impl Service {
    fn answer<Q, R>(&self, method: usize, answer: &Answer<Q, R>, request: Request<Q>) -> Result<R, Status> {
        answer(self.calls[method].fetch_add(1, Ordering::SeqCst), request)
    }
}

#[tonic::async_trait]
impl PreloadService for Service {
    type WatchLoadStream = Pin<Box<dyn Stream<Item = Result<Load, Status>> + Send>>;

    async fn start_load(&self, request: Request<StartLoadRequest>) -> Result<Response<Load>, Status> {
        self.answer(0, &self.script.start, request).map(Response::new)
    }

    async fn get_load(&self, request: Request<GetLoadRequest>) -> Result<Response<Load>, Status> {
        self.answer(1, &self.script.get, request).map(Response::new)
    }

    async fn watch_load(
        &self,
        request: Request<WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        let steps = self.answer(2, &self.script.watch, request)?;
        let orders = self.orders.clone();
        let (messages, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            for step in steps {
                let message = match step {
                    Step::Send(load) => Ok(*load),
                    Step::Fail(status) => Err(status),
                    Step::Wait(until) => {
                        until.notified().await;
                        continue;
                    }
                    Step::Die => {
                        orders.send(Order::Die).unwrap();
                        return std::future::pending().await;
                    }
                    Step::Hang => return messages.closed().await,
                };
                if messages.send(message).await.is_err() {
                    return;
                }
            }
        });
        let stream = ReceiverStream::new(stream);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_loads(
        &self,
        request: Request<ListLoadsRequest>,
    ) -> Result<Response<ListLoadsResponse>, Status> {
        self.answer(3, &self.script.list, request).map(Response::new)
    }

    async fn cancel_load(&self, request: Request<CancelLoadRequest>) -> Result<Response<Load>, Status> {
        self.answer(4, &self.script.cancel, request).map(Response::new)
    }

    async fn verify_load(&self, request: Request<VerifyLoadRequest>) -> Result<Response<Load>, Status> {
        self.answer(7, &self.script.verify, request).map(Response::new)
    }

    async fn list_failures(
        &self,
        request: Request<ListFailuresRequest>,
    ) -> Result<Response<ListFailuresResponse>, Status> {
        self.answer(5, &self.script.failures, request).map(Response::new)
    }

    async fn delete_load(&self, request: Request<DeleteLoadRequest>) -> Result<Response<()>, Status> {
        self.answer(6, &self.script.delete, request).map(Response::new)
    }
}

/// A running server.
pub(crate) struct Server {
    /// As `--address` takes it.
    pub(crate) address: String,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn tcp(script: Script) -> Self {
        Self::start(Socket::tcp(), None, script)
    }

    pub(crate) fn tls(tls: ServerTlsConfig, script: Script) -> Self {
        Self::start(Socket::tcp(), Some(tls), script)
    }

    pub(crate) fn unix(path: &Path, script: Script) -> Self {
        Self::start(Socket::Unix(os::UnixListener::bind(path).unwrap()), None, script)
    }

    fn start(socket: Socket, tls: Option<ServerTlsConfig>, script: Script) -> Self {
        let address = socket.address();
        let (orders, received) = mpsc::channel();
        let service = Arc::new(Service { script, calls: Default::default(), orders: orders.clone() });
        let thread = thread::spawn(move || live(&socket, tls, &service, &received));
        Self { address, orders, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A thread that has panicked has no ears, and its panic was printed.
        let _ = self.orders.send(Order::Stop);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Outlives each life, so that nobody else takes the address in between.
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(os::UnixListener),
}

impl Socket {
    fn tcp() -> Self {
        Self::Tcp(std::net::TcpListener::bind("127.0.61.1:0").unwrap())
    }

    fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().unwrap().to_string(),
            Self::Unix(listener) => {
                format!("unix:{}", listener.local_addr().unwrap().as_pathname().unwrap().display())
            }
        }
    }
}

fn live(
    socket: &Socket,
    tls: Option<ServerTlsConfig>,
    service: &Arc<Service>,
    orders: &mpsc::Receiver<Order>,
) {
    loop {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls.clone() {
            server = server.tls_config(tls).unwrap();
        }
        let router = server.add_service(PreloadServiceServer::from_arc(service.clone()));
        let context = runtime.enter();
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true).unwrap();
                let listener = net::TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
                tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true).unwrap();
                let listener = net::UnixListener::from_std(listener.try_clone().unwrap()).unwrap();
                tokio::spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
            }
        }
        drop(context);
        let order = orders.recv();
        runtime.shutdown_timeout(Duration::from_secs(10));
        match order {
            Ok(Order::Die) => {}
            Ok(Order::Stop) | Err(_) => return,
        }
    }
}
