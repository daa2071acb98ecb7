//! What requests may take until they are whole: each its time, all together a bounded memory.
//!
//! Nearly all are whole when they are first looked at, and are asked for nothing. It is for the slow ones: a client
//! that answers PINGs keeps its connection for ever, and half a message with it. Metadata beyond a token are counted
//! too, for as long as somebody may look at them.

use std::{
    future::{self, Ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::Either;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
};
use tower::Layer;

use crate::service;

/// From when a request is first waited for until its end. It is a few hundred bytes, and seldom 10 KiB.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that are waited for, over all connections, however little of them is here: 3 KiB at most, so 24 MiB.
const WAITED_FOR: usize = 8 * 1024;
/// Those of them of which more than a little is here. Each holds 64 KiB at most, so 16 MiB.
const HALVES: usize = 256;
/// In bytes. Up to this size they are no halves: clients say late that a request was whole, and many may call at once.
const LITTLE: usize = 1024;
/// Metadata of all requests, in KiB, but for those of the most usual size.
const METADATA: usize = 16 * 1024;
/// In bytes: a token of Kubernetes is somewhat above 1 KiB.
const USUAL_METADATA: usize = 2048;

/// Wraps every service of a server; all share one memory.
#[derive(Debug, Clone)]
pub(crate) struct WholeLayer {
    waited_for: Arc<Semaphore>,
    halves: Arc<Semaphore>,
    metadata: Arc<Semaphore>,
    patience: Duration,
}

impl WholeLayer {
    pub(crate) fn new() -> Self {
        Self::with(PATIENCE)
    }

    fn with(patience: Duration) -> Self {
        let [waited_for, halves, metadata] =
            [WAITED_FOR, HALVES, METADATA].map(|room| Arc::new(Semaphore::new(room)));
        Self { waited_for, halves, metadata, patience }
    }

    /// Room for the metadata, which is theirs until they are dropped.
    fn keep(&self, request: &mut http::Request<Body>) -> Result<(), Status> {
        let sizes = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        let size = sizes.sum::<usize>();
        if size > USUAL_METADATA {
            let size = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.metadata).try_acquire_many_owned(size);
            let room = room.map_err(|_| service::too_much_metadata())?;
            request.extensions_mut().insert(Arc::new(room));
        }
        Ok(())
    }
}

impl<S> Layer<S> for WholeLayer {
    type Service = Whole<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Whole { inner, layer: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Whole<S> {
    inner: S,
    layer: WholeLayer,
}

impl<S> Service<http::Request<Body>> for Whole<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Self::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Err(status) = self.layer.keep(&mut request) {
            return Either::Left(future::ready(Ok(status.into_http())));
        }
        let layer = self.layer.clone();
        let arriving = |body| Body::new(Arriving { body, layer, size: 0, half: None, waited_for: None });
        Either::Right(self.inner.call(request.map(arriving)))
    }
}

/// A body that fails when it is late, or one of too many.
struct Arriving {
    body: Body,
    layer: WholeLayer,
    size: usize,
    half: Option<OwnedSemaphorePermit>,
    waited_for: Option<(OwnedSemaphorePermit, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.size += frame.data_ref().map_or(0, Bytes::len);
            }
            return Poll::Ready(frame);
        }
        let patience = this.layer.patience;
        let one_of = |room: &Arc<Semaphore>| {
            Arc::clone(room).try_acquire_owned().map_err(|_| service::too_many_halves())
        };
        if this.size > LITTLE && this.half.is_none() {
            match one_of(&this.layer.halves) {
                Ok(half) => this.half = Some(half),
                Err(refusal) => return Poll::Ready(Some(Err(refusal))),
            }
        }
        let (_, until) = match &mut this.waited_for {
            Some(waited_for) => waited_for,
            none => match one_of(&this.layer.waited_for) {
                Ok(room) => none.insert((room, Box::pin(sleep(patience)))),
                Err(refusal) => return Poll::Ready(Some(Err(refusal))),
            },
        };
        ready!(until.as_mut().poll(context));
        Poll::Ready(Some(Err(service::not_whole(patience))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use tonic::Code;
    use tower::ServiceExt;

    use super::*;

    /// What reading a body to its end says.
    async fn read(layer: &WholeLayer, body: Body) -> Result<Bytes, Status> {
        let reader = tower::service_fn(|request: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::new(Body::new(request.into_body())))
        });
        let answer = layer.layer(reader).oneshot(http::Request::new(body)).await.unwrap();
        answer.into_body().collect().await.map(|body| body.to_bytes())
    }

    fn half(size: usize) -> Body {
        let part = stream::iter([Ok::<_, Status>(Frame::data(vec![0; size].into()))]);
        Body::new(StreamBody::new(part.chain(stream::pending())))
    }

    #[tokio::test]
    async fn a_request_that_is_late_is_given_up() {
        let layer = WholeLayer::with(Duration::from_millis(10));
        for body in [
            half(10),
            half(10_000),
            Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>())),
        ] {
            assert_eq!(read(&layer, body).await.unwrap_err().code(), Code::Unavailable);
        }
        assert_eq!(layer.halves.available_permits(), HALVES);
    }

    #[tokio::test]
    async fn beyond_too_many_halves_whole_requests_are_served() {
        let layer = WholeLayer::new();
        let mut halves: Vec<_> = (0..HALVES).map(|_| Box::pin(read(&layer, half(LITTLE + 1)))).collect();
        for half in &mut halves {
            assert!(futures_util::poll!(half).is_pending());
        }
        assert_eq!(read(&layer, half(LITTLE + 1)).await.unwrap_err().code(), Code::ResourceExhausted);
        assert!(futures_util::poll!(Box::pin(read(&layer, half(LITTLE)))).is_pending());
        // Those that have less than a little are bounded too.
        let mut little: Vec<_> = (0..WAITED_FOR - HALVES).map(|_| Box::pin(read(&layer, half(1)))).collect();
        for little in &mut little {
            assert!(futures_util::poll!(little).is_pending());
        }
        assert_eq!(read(&layer, half(1)).await.unwrap_err().code(), Code::ResourceExhausted);
        let whole = Body::new(http_body_util::Full::new(vec![1; 10_000].into()));
        assert_eq!(read(&layer, whole).await.unwrap().len(), 10_000);
    }

    /// The answer to a call with so much metadata, and the request as its service sees it.
    async fn called(layer: &WholeLayer, metadata: usize) -> (Option<Status>, Option<http::Request<Body>>) {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let sees = Arc::clone(&seen);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            *sees.lock().unwrap() = Some(request);
            future::ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
        });
        let request = http::Request::builder().header("a", "x".repeat(metadata - 1)).body(Body::empty());
        let answer = layer.layer(service).oneshot(request.unwrap()).await.unwrap();
        (Status::from_header_map(answer.headers()), seen.lock().unwrap().take())
    }

    #[tokio::test]
    async fn metadata_have_room_until_the_request_is_dropped() {
        let layer = WholeLayer::new();
        let mut held = Vec::new();
        while layer.metadata.available_permits() > 0 {
            let (refused, request) = called(&layer, 16 * 1024).await;
            assert!(refused.is_none());
            held.push(request.unwrap());
        }
        assert_eq!(held.len(), 1024);
        let (refused, request) = called(&layer, USUAL_METADATA + 1).await;
        assert_eq!(refused.unwrap().code(), Code::ResourceExhausted);
        assert!(request.is_none());
        assert!(called(&layer, USUAL_METADATA).await.0.is_none(), "a token is always heard");
        // As a service does: it takes the body, and looks at the metadata no more.
        drop(held.pop().unwrap().into_body());
        assert!(called(&layer, 16 * 1024).await.0.is_none());
    }
}
