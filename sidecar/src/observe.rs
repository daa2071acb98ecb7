//! Counts and times every call of a service.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use crate::metrics::Metrics;

/// Wraps a gRPC service.
#[derive(Debug, Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Observe<S> {
    #[must_use]
    pub(crate) fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S: NamedService> NamedService for Observe<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Observe<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let begun = Instant::now();
        // Only names of the contract become labels: what a stranger asks for must not fill memory.
        let method = match request.uri().path().rsplit('/').next() {
            Some("StartLoad") => "StartLoad",
            Some("GetLoad") => "GetLoad",
            Some("WatchLoad") => "WatchLoad",
            Some("ListLoads") => "ListLoads",
            Some("CancelLoad") => "CancelLoad",
            Some("ListFailures") => "ListFailures",
            Some("DeleteLoad") => "DeleteLoad",
            _ => "other",
        };
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            metrics.request(method, code, begun.elapsed());
            Ok(response)
        })
    }
}
