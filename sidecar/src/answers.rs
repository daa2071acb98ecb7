//! Answers that nobody takes: each has its time, all together a bounded memory.
//!
//! A client may leave its window shut and answer PINGs for ever. An answer of a list may be megabytes, and HTTP/2 has
//! no word for how long it waits. Streams of answers are left alone: they make the next when the last is taken. Only
//! lists are refused for want of room: other calls have done by then what they were asked for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, StdError, http},
    server::NamedService,
};

use crate::service;

/// For a part of an answer to be taken. A megabyte over a slow line takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a part of one answer may take that long.
const PARTS: usize = 20;
/// What is handed on at once, and is out of our hands then. Answers up to this size are not counted.
const PIECE: usize = 4 * 1024;
/// All answers that wait to be taken, in KiB.
const ROOM: usize = 32 * 1024;

/// Wraps the service; clones share the room.
#[derive(Debug, Clone)]
pub(crate) struct Answers<S> {
    inner: S,
    room: Arc<Semaphore>,
}

impl<S> Answers<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, room: Arc::new(Semaphore::new(ROOM)) }
    }
}

impl<S: NamedService> NamedService for Answers<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Answers<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next();
        let streams = method == Some("WatchLoad");
        let is_list = matches!(method, Some("ListLoads" | "ListFailures"));
        let room = Arc::clone(&self.room);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            if streams {
                return Ok(http::Response::from_parts(parts, Body::new(body)));
            }
            Ok(match keep(body, &room, is_list, PATIENCE).await {
                Ok(kept) => http::Response::from_parts(parts, Body::new(kept)),
                Err(status) => status.into_http(),
            })
        })
    }
}

async fn keep<B>(body: B, room: &Arc<Semaphore>, may_refuse: bool, patience: Duration) -> Result<Kept, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let body = body.collect().await.map_err(|error| Status::from_error(error.into()))?;
    let trailers = body.trailers().cloned();
    let bytes = body.to_bytes();
    if bytes.len() <= PIECE {
        let left = Arc::new(Mutex::new(Some(Left { bytes, _room: None })));
        return Ok(Kept { left, trailers, _end: None });
    }
    let size = bytes.len().div_ceil(1024).min(ROOM);
    let taken = Arc::clone(room).try_acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX));
    let taken = match taken {
        Ok(taken) => Some(taken),
        Err(_) if may_refuse => return Err(service::answers_wait()),
        // One load, so some 20 KiB.
        Err(_) => None,
    };
    let mut pace = Pace { left: bytes.len(), parts: 0 };
    let left = Arc::new(Mutex::new(Some(Left { bytes, _room: taken })));
    // A body whose client takes nothing is not asked for more, and so cannot look at the time.
    // Weak: what is taken leaves its room at once.
    let late = Arc::downgrade(&left);
    let end = tokio::spawn(async move {
        loop {
            tokio::time::sleep(patience).await;
            let Some(late) = late.upgrade() else { return };
            let mut left = late.lock().unwrap_or_else(PoisonError::into_inner);
            if !pace.goes_on(left.as_ref().map_or(0, |left| left.bytes.len())) {
                *left = None;
                return;
            }
        }
    });
    Ok(Kept { left, trailers, _end: Some(AbortOnDropHandle::new(end)) })
}

/// How an answer is taken.
struct Pace {
    /// In bytes, a while ago.
    left: usize,
    parts: usize,
}

impl Pace {
    /// Whether it is waited for, with so much left after another while.
    fn goes_on(&mut self, left: usize) -> bool {
        let taken = self.left.saturating_sub(left);
        self.left = left;
        self.parts += 1;
        taken > 0 && self.parts < PARTS
    }
}

struct Left {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// An answer in pieces.
struct Kept {
    /// `None` when its time is over.
    left: Arc<Mutex<Option<Left>>>,
    trailers: Option<http::HeaderMap>,
    _end: Option<AbortOnDropHandle<()>>,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Left { bytes, .. }) = &mut *left else {
            let message = format!("the answer was not taken within {} s", PATIENCE.as_secs());
            return Poll::Ready(Some(Err(Status::unavailable(message))));
        };
        if bytes.is_empty() {
            drop(left);
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        // A copy: a part of the whole would hold the whole.
        let piece = Bytes::copy_from_slice(&bytes.split_to(bytes.len().min(PIECE)));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.trailers.is_none() && left.as_ref().is_some_and(|left| left.bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tonic::Code;

    use super::*;

    fn answer(size: usize) -> Full<Bytes> {
        Full::new(vec![1; size].into())
    }

    #[tokio::test]
    async fn too_many_answers_that_nobody_takes_are_refused() {
        let room = Arc::new(Semaphore::new(ROOM));
        let mut waiting = Vec::new();
        for _ in 0..ROOM / 1024 {
            waiting.push(keep(answer(1 << 20), &room, true, PATIENCE).await.unwrap());
        }
        let refused = keep(answer(1 << 20), &room, true, PATIENCE).await.err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let done = keep(answer(20 << 10), &room, false, PATIENCE).await.unwrap();
        assert_eq!(done.collect().await.unwrap().to_bytes().len(), 20 << 10, "what was done is told");
        let small = keep(answer(PIECE), &room, true, PATIENCE).await.unwrap();
        assert_eq!(small.collect().await.unwrap().to_bytes().len(), PIECE);
        waiting.pop();
        keep(answer(1 << 20), &room, true, PATIENCE).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_leaves_its_room() {
        let room = Arc::new(Semaphore::new(ROOM));
        let late = keep(answer(1 << 20), &room, true, Duration::from_millis(10)).await.unwrap();
        let _all = room.acquire_many(ROOM as u32).await.unwrap();
        assert_eq!(late.collect().await.unwrap_err().code(), Code::Unavailable);
    }

    #[test]
    fn who_takes_a_part_is_waited_for_but_not_for_ever() {
        let mut pace = Pace { left: 100, parts: 0 };
        assert!(pace.goes_on(99) && pace.goes_on(50) && !pace.goes_on(50));
        let mut pace = Pace { left: 100, parts: 0 };
        assert_eq!((0..100).rev().take_while(|left| pace.goes_on(*left)).count(), PARTS - 1);
    }

    #[tokio::test]
    async fn an_answer_is_whole_and_has_its_trailers() {
        let trailers: http::HeaderMap =
            [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
        let room = Arc::new(Semaphore::new(ROOM));
        let sent = trailers.clone();
        let body = answer(100_000).with_trailers(async move { Some(Ok(sent)) });
        let taken = keep(body, &room, true, PATIENCE).await.unwrap().collect().await.unwrap();
        assert_eq!(taken.trailers(), Some(&trailers));
        assert_eq!(taken.to_bytes().len(), 100_000);
        assert_eq!(room.available_permits(), ROOM);
    }
}
