//! Requests that never end, or are too long, from clients that answer PINGs and keep to the windows.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use preload_tests::Sandbox;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{CUT_WITHIN, House};

const CONNECTIONS: usize = 20;
/// Of each.
const STREAMS: usize = 256;
/// Nearly what is taken of a request. All of them are 300 MB.
const HALF: usize = 60_000;
const LONG: usize = 1 << 20;
/// Nearly what is taken of metadata. A thousand calls of three connections are 45 MB; it is work to decode more.
const METADATA: usize = 15_000;
const HEAVY_CONNECTIONS: usize = 3;

pub(super) async fn channel(house: &House<'_>) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{}", house.sidecar.address()))?.connect().await?)
}

pub(super) fn request(path: &str, body: Body) -> Result<http::Request<Body>> {
    let request =
        http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    Ok(request.body(body)?)
}

pub(super) async fn call(
    channel: &mut Channel,
    request: http::Request<Body>,
) -> Result<http::Response<Body>> {
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    Ok(channel.call(request).await?)
}

/// `bytes` as the beginning of a message of `length`.
fn part(length: usize, bytes: &[u8]) -> Result<Bytes> {
    let mut part = vec![0];
    part.extend(u32::try_from(length)?.to_be_bytes());
    part.extend(bytes);
    Ok(part.into())
}

pub(super) fn whole(bytes: &[u8]) -> Result<Body> {
    Ok(Body::new(Full::new(part(bytes.len(), bytes)?)))
}

/// Half a message, and then nothing, or a byte now and then.
fn half(drips: bool) -> Result<Body> {
    let first = part(HALF + 1_000, &vec![0; HALF])?;
    let rest = stream::unfold((), move |()| async move {
        let pause = if drips { Duration::from_secs(1) } else { Duration::MAX };
        tokio::time::sleep(pause).await;
        Some((Bytes::from_static(&[0]), ()))
    });
    let frames = stream::iter([first]).chain(rest).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
    Ok(Body::new(StreamBody::new(Box::pin(frames))))
}

/// What a request is answered that is never whole.
async fn refusal(mut channel: Channel, request: http::Request<Body>) -> Result<Status> {
    let answer = tokio::time::timeout(CUT_WITHIN, call(&mut channel, request)).await;
    let answer = answer.context("a request that is never whole stays for ever")??;
    Status::from_header_map(answer.headers()).context("no status")
}

/// How many were refused why.
#[derive(Default)]
struct Refused {
    late: usize,
    without_room: usize,
}

async fn refused(calls: JoinSet<Result<Status>>) -> Result<Refused> {
    let mut refused = Refused::default();
    for status in calls.join_all().await {
        match status?.code() {
            Code::Unavailable => refused.late += 1,
            Code::ResourceExhausted => refused.without_room += 1,
            other => bail!("{other:?}"),
        }
    }
    Ok(refused)
}

#[tokio::test]
async fn half_a_message_is_given_up() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let paths = ["/preload.v1.PreloadService/StartLoad", "/preload.v1.PreloadService/WatchLoad"];
    let attack = async || {
        let mut calls = JoinSet::new();
        for number in 0..CONNECTIONS {
            let channel = channel(&house).await?;
            for stream in 0..STREAMS {
                let request = request(paths[number % 2], half(stream % 2 == 0)?)?;
                calls.spawn(refusal(channel.clone(), request));
            }
        }
        ensure!(refused(calls).await?.late > 0, "none was waited for");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// Calls for which nobody has to show a token, with all the metadata that are taken, and without their message.
#[tokio::test]
async fn metadata_without_a_message_are_bounded() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let mut calls = JoinSet::new();
        for _ in 0..HEAVY_CONNECTIONS {
            let channel = channel(&house).await?;
            for _ in 0..4 * STREAMS {
                let nothing = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
                let mut request = request("/grpc.health.v1.Health/Check", Body::new(nothing))?;
                request.headers_mut().insert("x-long", "x".repeat(METADATA).parse()?);
                calls.spawn(refusal(channel.clone(), request));
            }
        }
        ensure!(refused(calls).await?.without_room > 0, "there was room for 45 MB");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

#[tokio::test]
async fn messages_that_are_too_long_are_refused() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let long = part(LONG, &vec![0; LONG])?;
    let calls = [
        ("/preload.v1.PreloadService/StartLoad", Code::OutOfRange),
        ("/preload.v1.PreloadService/WatchLoad", Code::OutOfRange),
        ("/grpc.health.v1.Health/Check", Code::OutOfRange),
        // Ends its stream without a word.
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Code::Ok),
    ];
    let attack = async || {
        let mut asked = JoinSet::new();
        for (path, wanted) in calls {
            let channel = channel(&house).await?;
            for _ in 0..100 {
                let mut channel = channel.clone();
                let request = request(path, Body::new(Full::new(long.clone())))?;
                asked.spawn(async move {
                    let answer = tokio::time::timeout(CUT_WITHIN, call(&mut channel, request)).await;
                    let (head, body) = answer.context("no answer")?.context(path)?.into_parts();
                    let status = match Status::from_header_map(&head.headers) {
                        Some(status) => status,
                        None => {
                            let rest = body.collect().await?;
                            rest.trailers().and_then(Status::from_header_map).context("no status")?
                        }
                    };
                    // One that has to wait for the others' bytes may be late.
                    ensure!([wanted, Code::Unavailable].contains(&status.code()), "{path}: {status:?}");
                    Ok(status.code() == wanted)
                });
            }
        }
        let refused: Vec<bool> = asked.join_all().await.into_iter().collect::<Result<_>>()?;
        ensure!(refused.iter().filter(|refused| **refused).count() > refused.len() / 2, "most were late");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// Errors travel in headers, which clients take up to a size.
#[tokio::test]
async fn an_error_never_echoes_what_is_too_long() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut client = house.sidecar.client()?;
    let long = "\u{1}".repeat(50_000);
    let mut wish = preload_tests::load("a", "/a", 1);
    wish.spec.as_mut().context("a spec")?.labels.insert(long.clone(), String::new());
    let list = alluxio_preload_api::v1::ListLoadsRequest { page_token: long, ..Default::default() };
    let refused = [client.start_load(wish).await.err(), client.list_loads(list).await.err()];
    for status in refused {
        let status = status.context("it was taken")?;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().len() < 1_000, "{} bytes", status.message().len());
    }
    house.is_well().await
}
