//! What requests may take until they are whole: each its time, all together a bounded memory.
//!
//! Nearly all are whole when they are first looked at, and are asked for nothing. It is for the slow ones: a client
//! that answers PINGs keeps its connection for ever, and half a message with it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
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
/// Requests of which more than a little is here, over all connections. Each holds 64 KiB at most, so 16 MiB.
const HALVES: usize = 256;
/// In bytes. Up to this size they are not counted: clients say late that a request was whole, and many may call at once.
const LITTLE: usize = 1024;

/// Wraps every service of a server; all share one memory.
#[derive(Debug, Clone)]
pub(crate) struct WholeLayer {
    halves: Arc<Semaphore>,
    patience: Duration,
}

impl WholeLayer {
    pub(crate) fn new() -> Self {
        Self::with(PATIENCE)
    }

    fn with(patience: Duration) -> Self {
        Self { halves: Arc::new(Semaphore::new(HALVES)), patience }
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

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Whole<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let layer = self.layer.clone();
        let arriving = |body| Body::new(Arriving { body, layer, size: 0, half: None, until: None });
        self.inner.call(request.map(arriving))
    }
}

/// A body that fails when it is late, or one of too many.
struct Arriving {
    body: Body,
    layer: WholeLayer,
    size: usize,
    half: Option<OwnedSemaphorePermit>,
    until: Option<Pin<Box<Sleep>>>,
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
        if this.size > LITTLE && this.half.is_none() {
            let Ok(half) = Arc::clone(&this.layer.halves).try_acquire_owned() else {
                return Poll::Ready(Some(Err(service::too_many_halves())));
            };
            this.half = Some(half);
        }
        let patience = this.layer.patience;
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(patience)));
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
            Ok::<_, Infallible>(request.into_body().collect().await.map(|body| body.to_bytes()))
        });
        layer.layer(reader).oneshot(http::Request::new(body)).await.unwrap()
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
        let whole = Body::new(http_body_util::Full::new(vec![1; 10_000].into()));
        assert_eq!(read(&layer, whole).await.unwrap().len(), 10_000);
    }
}
