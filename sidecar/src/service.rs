//! The RPCs of `preload.v1.PreloadService`: decode, call the manager, encode.
//!
//! No decision is made here. While the store cannot be opened every call answers FAILED_PRECONDITION with
//! the reason: the process stays up, because a container that is down takes the master's pod with it.

mod convert;
mod page;
mod status;
mod watch;

use std::{pin::Pin, sync::Arc, time::Duration};

use alluxio_preload_api::v1::{self, preload_service_server::PreloadService};
use futures_util::Stream;
use tokio::sync::{Semaphore, SemaphorePermit, watch as channel};
use tonic::{Request, Response, Status};

use crate::{
    manager::{Manager, ManagerError},
    metrics::Metrics,
};
use page::Page;
pub(crate) use status::{OPENING, answers_wait, not_whole, too_many_halves, too_much_metadata};

/// For an answer; the store is the slowest part, and takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists that are read and put into words at once; others wait. Each may be megabytes, thrice.
const LISTS_AT_ONCE: usize = 4;

/// What serves the calls at the moment.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Ready in a moment.
    Opening,
    Ready(Manager),
    /// Why not, and what to do.
    Unusable(Arc<str>),
}

/// Serves whatever backend is there. Clones share it.
#[derive(Debug, Clone)]
pub struct Service {
    backend: channel::Receiver<Backend>,
    metrics: Metrics,
    lists: Arc<Semaphore>,
}

impl Service {
    #[must_use]
    pub fn new(backend: channel::Receiver<Backend>, metrics: Metrics) -> Self {
        Self { backend, metrics, lists: Arc::new(Semaphore::new(LISTS_AT_ONCE)) }
    }

    fn manager(&self) -> Result<Manager, Status> {
        match &*self.backend.borrow() {
            Backend::Opening => Err(status::opening()),
            Backend::Ready(manager) => Ok(manager.clone()),
            Backend::Unusable(reason) => Err(status::no_store(reason)),
        }
    }

    /// A list, when it is its turn; others wait for theirs until what comes first is dropped.
    async fn in_turn<T>(
        &self,
        list: impl Future<Output = Result<T, ManagerError>>,
    ) -> Result<(SemaphorePermit<'_>, T), ManagerError> {
        // Never closed but in thought.
        let turn = self.lists.acquire().await.map_err(|_| ManagerError::Stopping)?;
        Ok((turn, list.await?))
    }
}

/// For the answer of a check, which lists a whole path; a million files take a minute or two.
const CHECK_PATIENCE: Duration = Duration::from_secs(600);

/// The answer, unless it takes too long: a disk that hangs must not take a caller with it. What was asked for may
/// still be done then; asked again with the same id, it is not done twice.
async fn in_time<T>(answer: impl Future<Output = Result<T, ManagerError>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| status::of_manager(&error)),
        Err(_) => Err(status::outcome_unknown(PATIENCE)),
    }
}

#[tonic::async_trait]
impl PreloadService for Service {
    async fn start_load(&self, request: Request<v1::StartLoadRequest>) -> Result<Response<v1::Load>, Status> {
        let manager = self.manager()?;
        let v1::StartLoadRequest { load_id, spec } = request.into_inner();
        let id = convert::optional_id(load_id).map_err(|e| status::of_field(&e))?;
        let spec = convert::spec(spec).map_err(|e| status::of_field(&e))?;
        let job = in_time(manager.start_load(id, spec)).await?;
        Ok(Response::new(convert::load(&job)))
    }

    async fn get_load(&self, request: Request<v1::GetLoadRequest>) -> Result<Response<v1::Load>, Status> {
        let manager = self.manager()?;
        let id = convert::id(request.into_inner().load_id).map_err(|e| status::of_field(&e))?;
        let job = in_time(manager.get(&id)).await?;
        Ok(Response::new(convert::load(&job)))
    }

    type WatchLoadStream = Pin<Box<dyn Stream<Item = Result<v1::Load, Status>> + Send>>;

    async fn watch_load(
        &self,
        request: Request<v1::WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        let manager = self.manager()?;
        let v1::WatchLoadRequest { load_id, follow, after_sequence: _ } = request.into_inner();
        let id = convert::id(load_id).map_err(|e| status::of_field(&e))?;
        let watch = in_time(manager.watch(&id, follow)).await?;
        Ok(Response::new(Box::pin(watch::stream(watch, manager.stopping().clone(), self.metrics.watcher()))))
    }

    async fn list_loads(
        &self,
        request: Request<v1::ListLoadsRequest>,
    ) -> Result<Response<v1::ListLoadsResponse>, Status> {
        let manager = self.manager()?;
        let v1::ListLoadsRequest { page_size, page_token, filter } = request.into_inner();
        let page = Page::new(page_size, &page_token).map_err(|e| status::of_field(&e))?;
        let query = convert::list_query(filter, &page).map_err(|e| status::of_field(&e))?;
        let (_turn, mut found) = in_time(self.in_turn(manager.list(query))).await?;
        let next_page_token = page.cut(&mut found);
        let loads = found.iter().map(|(_, job)| convert::load(job)).collect();
        Ok(Response::new(v1::ListLoadsResponse { loads, next_page_token }))
    }

    async fn cancel_load(
        &self,
        request: Request<v1::CancelLoadRequest>,
    ) -> Result<Response<v1::Load>, Status> {
        let manager = self.manager()?;
        let id = convert::id(request.into_inner().load_id).map_err(|e| status::of_field(&e))?;
        let job = in_time(manager.cancel(&id)).await?;
        Ok(Response::new(convert::load(&job)))
    }

    async fn verify_load(
        &self,
        request: Request<v1::VerifyLoadRequest>,
    ) -> Result<Response<v1::Load>, Status> {
        let manager = self.manager()?;
        let id = convert::id(request.into_inner().load_id).map_err(|e| status::of_field(&e))?;
        match tokio::time::timeout(CHECK_PATIENCE, manager.verify(&id)).await {
            Ok(Ok(job)) => Ok(Response::new(convert::load(&job))),
            Ok(Err(error)) => Err(status::of_manager(&error)),
            Err(_) => Err(status::still_checking(CHECK_PATIENCE)),
        }
    }

    async fn list_failures(
        &self,
        request: Request<v1::ListFailuresRequest>,
    ) -> Result<Response<v1::ListFailuresResponse>, Status> {
        let manager = self.manager()?;
        let v1::ListFailuresRequest { load_id, page_size, page_token } = request.into_inner();
        let id = convert::id(load_id).map_err(|e| status::of_field(&e))?;
        let (generation, token) = page::of_list(&page_token).map_err(|e| status::of_field(&e))?;
        let page = Page::new(page_size, token).map_err(|e| status::of_field(&e))?;
        let found = manager.failures(&id, generation, page.after.unwrap_or(0), page.size + 1);
        let (_turn, (list, mut failures)) = in_time(self.in_turn(found)).await?;
        let total = list.count;
        let next_page_token = page::in_list(list.generation, &page.cut(&mut failures));
        let failures = failures.into_iter().map(|(_, failure)| convert::failure(failure)).collect();
        Ok(Response::new(v1::ListFailuresResponse { failures, next_page_token, total }))
    }

    async fn delete_load(&self, request: Request<v1::DeleteLoadRequest>) -> Result<Response<()>, Status> {
        let manager = self.manager()?;
        let id = convert::id(request.into_inner().load_id).map_err(|e| status::of_field(&e))?;
        in_time(manager.delete(&id)).await?;
        Ok(Response::new(()))
    }
}
