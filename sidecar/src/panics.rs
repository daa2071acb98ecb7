//! What becomes of a panic: it is logged with its place, counted, and ends what panicked and nothing else.
//!
//! [`install`] makes the hook of the process, [`CatchPanic`] answers the call that panicked with INTERNAL. The
//! client learns a number to look for in the log, and nothing else.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
};
use tower::Layer;

use crate::metrics::Metrics;

/// Panics of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last of this thread: whoever catches one does so on the thread that it was on.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Every panic of the process is logged and counted from now on.
pub fn install(metrics: Metrics) {
    std::panic::set_hook(Box::new(move |info| note(info, &metrics)));
}

fn note(info: &PanicHookInfo<'_>, metrics: &Metrics) {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    LAST.set(number);
    metrics.panicked();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = number,
        place,
        thread,
        backtrace,
        "panicked at {place}: {message}; this is a bug"
    );
}

/// Wraps every service of a server.
#[derive(Debug, Clone, Copy, Default)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CatchPanic { inner }
    }
}

/// Answers with INTERNAL where `inner` panics: on the call, on the way to the response, or within its stream.
#[derive(Debug, Clone)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S> Service<http::Request<Body>> for CatchPanic<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let called = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        Box::pin(async move {
            let answered = match called {
                Ok(answer) => AssertUnwindSafe(answer).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            match answered {
                Ok(answer) => Ok(answer?.map(|body| Body::new(CatchBody(Some(body))))),
                Err(panic) => Ok(status_of(panic).into_http()),
            }
        })
    }
}

/// A body that ends with trailers of INTERNAL where the inner one panics.
struct CatchBody(Option<Body>);

impl http_body::Body for CatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(context)));
        let status = match polled {
            Ok(polled) => return polled,
            Err(panic) => status_of(panic),
        };
        // Not to be polled again.
        self.0 = None;
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

/// The hook has said everything; the payload may hold anything and goes to nobody.
fn status_of(_payload: Box<dyn Any + Send>) -> Status {
    Status::internal(format!("the sidecar has a bug: see panic {} in its log", LAST.get()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio_stream::StreamExt;
    use tonic::Code;
    use tower::ServiceExt;

    use super::*;

    async fn answer(
        service: impl Fn() -> http::Response<Body> + Send + Clone + 'static,
        late: bool,
    ) -> http::Response<Body> {
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let service = service.clone();
            let early = (!late).then(&service);
            async move { Ok::<_, Infallible>(early.unwrap_or_else(service)) }
        });
        CatchPanicLayer.layer(service).oneshot(http::Request::new(Body::empty())).await.unwrap()
    }

    #[tokio::test]
    async fn a_panicking_call_is_internal_and_says_nothing() {
        for late in [false, true] {
            let response = answer(|| panic!("secret of {}", "the inside"), late).await;
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), Code::Internal);
            assert!(status.message().contains("see panic") && !status.message().contains("secret"));
        }
    }

    #[tokio::test]
    async fn a_stream_that_panics_ends_with_internal_after_what_it_sent() {
        let frames = tokio_stream::iter([0, 1]).map(|number| {
            assert!(number == 0, "secret");
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"first")))
        });
        let body = std::sync::Mutex::new(Some(Body::new(http_body_util::StreamBody::new(frames))));
        let body = std::sync::Arc::new(body);
        let response = answer(move || http::Response::new(body.lock().unwrap().take().unwrap()), true).await;
        let mut body = response.into_body();
        let mut next = async || http_body_util::BodyExt::frame(&mut body).await;
        assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "first");
        let trailers = next().await.unwrap().unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
        assert!(next().await.is_none());
    }
}
