//! What the comments of the .proto files promise, where no Alluxio is needed: nothing listens where the
//! sidecar looks for one, so that loads stay WAITING or QUEUED for as long as a test likes.

use crate::history;
use alluxio_preload_api::v1::list_loads_request::Filter;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::{Engine, LoadMetadata};
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use alluxio_preload_api::v1::{
    CancelLoadRequest, DeleteLoadRequest, GetLoadRequest, ListFailuresRequest, ListLoadsRequest, Load,
    LoadSpec, StartLoadRequest, WatchLoadRequest,
};
use anyhow::{Context, Result, ensure};
use preload_tests::{Sandbox, Setup, Sidecar, load};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt, StatusExt};

type Client = PreloadServiceClient<Channel>;

/// A request for `path` with one more thing changed.
fn with(path: &str, change: impl FnOnce(&mut LoadSpec)) -> StartLoadRequest {
    let mut request = load("a", path, 1);
    if let Some(spec) = &mut request.spec {
        change(spec);
    }
    request
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code) -> Result<Status> {
    let status = answer.err().context("the call was carried out")?;
    ensure!(status.code() == code, "not {code:?}: {status:?}");
    Ok(status)
}

/// Fails unless the call was refused for that field of the request.
fn bad_field<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) -> Result<()> {
    let status = refused(answer, Code::InvalidArgument)?;
    let details = status.get_details_bad_request().context("no BadRequest")?;
    let fields: Vec<_> = details.field_violations.iter().map(|v| v.field.as_str()).collect();
    ensure!(fields == [field], "{fields:?} are named, not {field}");
    ensure!(details.field_violations.iter().all(|violation| !violation.description.is_empty()));
    Ok(())
}

fn reason(status: &Status) -> Result<(String, std::collections::HashMap<String, String>)> {
    let info = status.get_details_error_info().context("no ErrorInfo")?;
    ensure!(info.domain == "preload.dev", "{info:?}");
    Ok((info.reason, info.metadata))
}

async fn list(client: &mut Client, request: ListLoadsRequest) -> Result<(Vec<String>, String)> {
    let answer = client.list_loads(request).await?.into_inner();
    Ok((answer.loads.into_iter().map(|load| load.id).collect(), answer.next_page_token))
}

async fn cancelled(sidecar: &Sidecar<'_>, id: &str) -> Result<Load> {
    sidecar.client()?.cancel_load(CancelLoadRequest { load_id: id.to_owned() }).await?;
    sidecar.in_state(id, State::Cancelled).await
}

#[tokio::test]
async fn bad_wishes_are_refused_and_leave_no_trace() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    let too_long = format!("/{}", "x".repeat(4096));
    let paths =
        ["", "data", "./a", "-x", "..", "/..", "/a/../b", "/a/.", "/a\0b", "/a\nb", "/a\rb", &too_long];
    for path in paths {
        let answer = client.start_load(load("a", path, 1)).await;
        bad_field(answer, "spec.path").with_context(|| format!("path {path:?}"))?;
    }
    for id in ["A", "-a", "a-", "a_b", "a/b", "a b", "ü", "a\n", &"a".repeat(64)] {
        bad_field(client.start_load(load(id, "/a", 1)).await, "load_id").with_context(|| id.to_owned())?;
    }
    let label = |key: usize, value: usize| std::iter::once(("k".repeat(key), "v".repeat(value))).collect();
    let many = (0..33).map(|n| (n.to_string(), String::new())).collect();
    let changes: [(&str, StartLoadRequest); 14] = [
        ("spec.replicas", with("/a", |spec| spec.replicas = Some(0))),
        ("spec.replicas", with("/a", |spec| spec.replicas = Some(u32::MAX))),
        ("spec.engine", with("/a", |spec| spec.engine = 99)),
        ("spec.engine", with("/a", |spec| spec.engine = -1)),
        ("spec.load_metadata", with("/a", |spec| spec.load_metadata = 99)),
        ("spec.max_attempts", with("/a", |spec| spec.max_attempts = 1_000_000)),
        ("spec.wait_timeout", with("/a", |spec| spec.wait_timeout = seconds(-1))),
        ("spec.timeout", with("/a", |spec| spec.timeout = seconds(-1))),
        ("spec.timeout", with("/a", |spec| spec.timeout = seconds(i64::MAX))),
        ("spec.labels", with("/a", |spec| spec.labels = label(0, 1))),
        ("spec.labels", with("/a", |spec| spec.labels = label(64, 1))),
        ("spec.labels", with("/a", |spec| spec.labels = label(1, 257))),
        ("spec.labels", with("/a", |spec| spec.labels = many)),
        ("spec", StartLoadRequest { load_id: "a".to_owned(), spec: None }),
    ];
    for (field, request) in changes {
        bad_field(client.start_load(request).await, field).with_context(|| field.to_owned())?;
    }

    assert_eq!(list(&mut client, ListLoadsRequest::default()).await?, (vec![], String::new()));
    refused(client.get_load(GetLoadRequest { load_id: "a".to_owned() }).await, Code::NotFound)?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn bad_questions_are_refused() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    for bad in ["", "A", "-", &"a".repeat(64)] {
        let load_id = || bad.to_owned();
        bad_field(client.get_load(GetLoadRequest { load_id: load_id() }).await, "load_id")?;
        bad_field(client.cancel_load(CancelLoadRequest { load_id: load_id() }).await, "load_id")?;
        bad_field(client.delete_load(DeleteLoadRequest { load_id: load_id() }).await, "load_id")?;
        let request = WatchLoadRequest { load_id: load_id(), ..WatchLoadRequest::default() };
        bad_field(client.watch_load(request).await, "load_id")?;
        let request = ListFailuresRequest { load_id: load_id(), ..ListFailuresRequest::default() };
        bad_field(client.list_failures(request).await, "load_id")?;
    }
    for (page_size, page_token, field) in
        [(-1, "", "page_size"), (1001, "", "page_size"), (1, "x", "page_token"), (1, "-1", "page_token")]
    {
        let page_token = page_token.to_owned();
        let request = ListLoadsRequest { page_size, page_token: page_token.clone(), filter: None };
        bad_field(client.list_loads(request).await, field)?;
        let request = ListFailuresRequest { load_id: "a".to_owned(), page_size, page_token };
        bad_field(client.list_failures(request).await, field)?;
    }
    for (filter, field) in [
        (Filter { states: vec![99], ..Filter::default() }, "filter.states"),
        (Filter { states: vec![0], ..Filter::default() }, "filter.states"),
        (Filter { path_prefix: "data".to_owned(), ..Filter::default() }, "filter.path_prefix"),
    ] {
        let request = ListLoadsRequest { filter: Some(filter), ..ListLoadsRequest::default() };
        bad_field(client.list_loads(request).await, field)?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_load_is_not_found_in_this_very_store() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    let load_id = || "unknown".to_owned();
    let mut stores = Vec::new();
    let mut note = |status: Status| -> Result<()> {
        let (reason, metadata) = reason(&status)?;
        assert_eq!(reason, "LOAD_NOT_FOUND");
        stores.push(metadata["store_uid"].parse::<uuid::Uuid>()?);
        Ok(())
    };
    note(refused(client.get_load(GetLoadRequest { load_id: load_id() }).await, Code::NotFound)?)?;
    note(refused(client.cancel_load(CancelLoadRequest { load_id: load_id() }).await, Code::NotFound)?)?;
    note(refused(client.delete_load(DeleteLoadRequest { load_id: load_id() }).await, Code::NotFound)?)?;
    for follow in [false, true] {
        let request = WatchLoadRequest { load_id: load_id(), follow, after_sequence: 0 };
        note(refused(client.watch_load(request).await, Code::NotFound)?)?;
    }
    let request = ListFailuresRequest { load_id: load_id(), ..ListFailuresRequest::default() };
    note(refused(client.list_failures(request).await, Code::NotFound)?)?;

    sidecar.terminate().await?;
    sidecar.restart().await?;
    note(refused(client.get_load(GetLoadRequest { load_id: load_id() }).await, Code::NotFound)?)?;
    sidecar.terminate().await?;
    fs::remove_dir_all(sidecar.state_directory())?;
    sidecar.restart().await?;
    note(refused(client.get_load(GetLoadRequest { load_id: load_id() }).await, Code::NotFound)?)?;

    let lost = stores.pop().context("the last one")?;
    assert!(stores.iter().all(|store| *store == stores[0]), "{stores:?}");
    assert_ne!(lost, stores[0], "another store is another uid");
    Ok(())
}

#[tokio::test]
async fn an_equal_wish_is_the_same_load_for_ever() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    let first = sidecar.start_load(with("/a/b", |spec| spec.replicas = None)).await?;
    let spec = first.spec.clone().context("the spec")?;
    assert_eq!((spec.replicas, spec.load_metadata(), spec.max_attempts), (Some(1), LoadMetadata::Once, 3));
    assert_eq!((spec.wait_timeout, spec.timeout), (seconds(600), None));

    let equal = with("//a/b/", |spec| {
        spec.set_load_metadata(LoadMetadata::Once);
        spec.max_attempts = 3;
        spec.min_workers = 9;
        spec.wait_timeout = seconds(1);
        spec.timeout = seconds(2);
        spec.labels = [("owner".to_owned(), "somebody".to_owned())].into();
    });
    let again = sidecar.start_load(equal.clone()).await?;
    assert_eq!((&again.uid, &again.spec), (&first.uid, &Some(spec.clone())), "the load is as it was");

    let other = StartLoadRequest {
        load_id: "a".to_owned(),
        spec: Some(LoadSpec {
            path: "/other".to_owned(),
            replicas: Some(2),
            engine: Engine::DistributedLoad.into(),
            load_metadata: LoadMetadata::Always.into(),
            allow_evict: true,
            max_attempts: 1,
            ..spec.clone()
        }),
    };
    let names = ["path", "replicas", "engine", "load_metadata", "allow_evict", "max_attempts"];
    let names = names.map(|name| format!("spec.{name}"));
    let status = refused(client.start_load(other).await, Code::AlreadyExists)?;
    let violations = status.get_details_bad_request().context("no BadRequest")?.field_violations;
    assert_eq!(violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>(), names);
    assert_eq!(reason(&status)?.1["fields"], names.join(","));
    assert!(names.iter().all(|name| status.message().contains(name)), "{status:?}");
    let one = with("/a/b", |spec| spec.replicas = Some(2));
    let status = refused(client.start_load(one).await, Code::AlreadyExists)?;
    assert_eq!(reason(&status)?.1["fields"], "spec.replicas");

    let ended = cancelled(&sidecar, "a").await?;
    let after = sidecar.start_load(equal).await?;
    assert_eq!(after, ended, "a finished load never starts again");
    Ok(())
}

#[tokio::test]
async fn without_an_id_every_wish_is_a_load_of_its_own() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let one = sidecar.start_load(load("", "/a", 1)).await?;
    let two = sidecar.start_load(load("", "/a", 1)).await?;
    assert_ne!(one.id, two.id);
    for load in [one, two] {
        assert_eq!(load.id.parse::<uuid::Uuid>()?.get_version_num(), 7);
        assert_eq!(sidecar.get_load(&load.id).await?.uid, load.uid);
    }
    Ok(())
}

#[tokio::test]
async fn lists_are_newest_first_and_pages_do_not_shift() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    let start = async |number: usize| {
        let label = |name: &str, value: usize| (name.to_owned(), value.to_string());
        let mut request = load(&format!("l{number:02}"), &format!("/d{}/x{number}", number % 2), 1);
        if let Some(spec) = &mut request.spec {
            spec.labels = [label("half", number / 5), label("rest", number % 5)].into();
        }
        sidecar.start_load(request).await
    };
    for number in 0..10 {
        start(number).await?;
    }
    for id in ["l03", "l08"] {
        cancelled(&sidecar, id).await?;
    }
    let page = |token: &str, filter: Option<Filter>| ListLoadsRequest {
        page_size: 4,
        page_token: token.to_owned(),
        filter,
    };
    let (first, token) = list(&mut client, page("", None)).await?;
    assert_eq!(first, ["l09", "l08", "l07", "l06"]);
    start(10).await?;
    client.delete_load(DeleteLoadRequest { load_id: "l08".to_owned() }).await?;
    let (second, next) = list(&mut client, page(&token, None)).await?;
    assert_eq!(second, ["l05", "l04", "l03", "l02"], "neither new nor deleted loads shift a page");
    assert_eq!(list(&mut client, page(&token, None)).await?, (second, next.clone()));
    let (third, last) = list(&mut client, page(&next, None)).await?;
    assert_eq!((third, last), (vec!["l01".to_owned(), "l00".to_owned()], String::new()));

    let filtered = |filter: Filter| ListLoadsRequest { filter: Some(filter), ..ListLoadsRequest::default() };
    let below = |prefix: &str| filtered(Filter { path_prefix: prefix.to_owned(), ..Filter::default() });
    assert_eq!(list(&mut client, below("/d1/")).await?.0, ["l09", "l07", "l05", "l03", "l01"]);
    assert_eq!(list(&mut client, below("/d1/x1")).await?.0, ["l01"]);
    assert_eq!(list(&mut client, below("/d")).await?.0, [""; 0], "a prefix is a path, not text");
    assert_eq!(list(&mut client, below("/")).await?.0.len(), 10);
    let states = filtered(Filter { states: vec![State::Cancelled.into()], ..Filter::default() });
    assert_eq!(list(&mut client, states).await?.0, ["l03"]);
    let labels = |labels: [(&str, &str); 2]| {
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        filtered(Filter { labels: labels.into(), ..Filter::default() })
    };
    assert_eq!(list(&mut client, labels([("half", "1"), ("rest", "2")])).await?.0, ["l07"]);
    assert_eq!(list(&mut client, labels([("half", "9"), ("rest", "2")])).await?.0, [""; 0]);
    let both = Filter {
        states: vec![State::Queued.into(), State::Waiting.into(), State::Cancelled.into()],
        path_prefix: "/d1".to_owned(),
        labels: [("half".to_owned(), "0".to_owned())].into(),
    };
    let request = ListLoadsRequest { page_size: 2, ..filtered(both) };
    let (ids, token) = list(&mut client, request.clone()).await?;
    assert_eq!(ids, ["l03", "l01"]);
    assert_eq!(token, "", "an exact fit is the last page");
    Ok(())
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let setup = Setup::alone(&sandbox).argument("--max-running=1").argument("--max-queued=2");
    let sidecar = setup.start().await?;
    let mut client = sidecar.client()?;
    for id in ["a", "b", "c"] {
        sidecar.start_load(load(id, &format!("/{id}"), 1)).await?;
    }
    let status = refused(client.start_load(load("d", "/d", 1)).await, Code::ResourceExhausted)?;
    assert_eq!(reason(&status)?.0, "QUEUE_FULL");
    let retry = status.get_details_retry_info().context("no RetryInfo")?;
    assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()));
    refused(client.get_load(GetLoadRequest { load_id: "d".to_owned() }).await, Code::NotFound)?;
    assert_eq!(sidecar.start_load(load("c", "/c", 1)).await?.id, "c", "a known load is no new one");

    cancelled(&sidecar, "b").await?;
    sidecar.start_load(load("d", "/d", 1)).await?;
    refused(client.start_load(load("e", "/e", 1)).await, Code::ResourceExhausted)?;
    Ok(())
}

#[tokio::test]
async fn a_queued_load_is_cancelled_at_once() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).argument("--max-running=1").start().await?;
    let mut client = sidecar.client()?;
    sidecar.start_load(load("first", "/first", 1)).await?;
    sidecar.start_load(load("second", "/second", 1)).await?;
    let waiting = sidecar.reaches("first", |load| load.reason() == Reason::AlluxioUnreachable).await?;
    assert_eq!(waiting.state(), State::Waiting);
    assert!(!waiting.message.is_empty());

    let second = cancelled(&sidecar, "second").await?;
    history::assert_complete(&second)?;
    assert_eq!(history::states(&second), [State::Queued, State::Cancelled]);
    assert_eq!((second.reason(), second.attempt), (Reason::CancelledByUser, 0));
    let error = second.error.clone().context("the error")?;
    assert_eq!(error.code, i32::from(Code::Cancelled));
    assert_eq!(error.get_details_error_info().context("no ErrorInfo")?.reason, "CANCELLED_BY_USER");
    let again = client.cancel_load(CancelLoadRequest { load_id: "second".to_owned() }).await?.into_inner();
    assert_eq!(again, second, "cancelling is idempotent");
    assert_eq!(sidecar.get_load("first").await?.state(), State::Waiting, "the other one goes on");

    let first = cancelled(&sidecar, "first").await?;
    assert_eq!(history::states(&first), [State::Queued, State::Waiting, State::Cancelled]);
    Ok(())
}

#[tokio::test]
async fn only_finished_loads_are_deleted() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).argument("--max-running=1").start().await?;
    let mut client = sidecar.client()?;
    let request = || DeleteLoadRequest { load_id: "a".to_owned() };
    let old = sidecar.start_load(load("a", "/a", 1)).await?;
    sidecar.in_state("a", State::Waiting).await?;
    let status = refused(client.delete_load(request()).await, Code::FailedPrecondition)?;
    assert_eq!(reason(&status)?.0, "LOAD_IS_LIVE");

    cancelled(&sidecar, "a").await?;
    client.delete_load(request()).await?;
    refused(client.get_load(GetLoadRequest { load_id: "a".to_owned() }).await, Code::NotFound)?;
    refused(client.delete_load(request()).await, Code::NotFound)?;
    assert_eq!(list(&mut client, ListLoadsRequest::default()).await?.0, [""; 0]);

    let mut uids = BTreeSet::from([old.uid]);
    for _ in 0..50 {
        let new = sidecar.start_load(load("a", "/b", 2)).await?;
        assert!(uids.insert(new.uid.clone()), "the id is free again, the uid is not");
        assert_eq!(sidecar.get_load("a").await?.uid, new.uid);
        client.cancel_load(CancelLoadRequest { load_id: "a".to_owned() }).await?;
        // The end of the watch, not a poll: the delete comes right after the load has ended.
        watch(client.clone(), "a".to_owned(), false).await?;
        client.delete_load(request()).await?;
        refused(client.get_load(GetLoadRequest { load_id: "a".to_owned() }).await, Code::NotFound)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_shut_gate_fails_the_load_in_the_end() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    sidecar.start_load(with("/a", |spec| spec.wait_timeout = seconds(1))).await?;
    let failed = sidecar.in_state("a", State::Failed).await?;
    history::assert_complete(&failed)?;
    assert_eq!(history::states(&failed), [State::Queued, State::Waiting, State::Failed]);
    assert_eq!(failed.reason(), Reason::GateTimedOut);
    let error = failed.error.context("the error")?;
    assert_eq!(error.code, i32::from(Code::DeadlineExceeded));
    assert_eq!(error.get_details_error_info().context("no ErrorInfo")?.reason, "GATE_TIMED_OUT");
    Ok(())
}

/// Watches to the end of the stream; every message, and how it ended.
async fn watch(mut client: Client, id: String, follow: bool) -> Result<(Vec<Load>, Option<Status>)> {
    let request = WatchLoadRequest { load_id: id, follow, after_sequence: 0 };
    let mut stream = client.watch_load(request).await?.into_inner();
    let mut seen: Vec<Load> = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(load)) => {
                ensure!(seen.last().is_none_or(|last| last.sequence <= load.sequence), "sequence goes back");
                seen.push(load);
            }
            Ok(None) => return Ok((seen, None)),
            Err(status) => return Ok((seen, Some(status))),
        }
    }
}

#[tokio::test]
async fn many_watchers_see_the_same_end() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).argument("--max-running=1").start().await?;
    sidecar.start_load(load("first", "/first", 1)).await?;
    sidecar.start_load(load("a", "/a", 1)).await?;
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..40 {
        // Half of them on connections of their own.
        let client = sidecar.client()?;
        watchers.spawn(watch(client.clone(), "a".to_owned(), false));
        watchers.spawn(watch(client, "a".to_owned(), number % 2 == 0));
    }
    preload_tests::wait::until("the watchers", preload_tests::wait::LIMIT, async || {
        let (_, text) = preload_tests::http::get(sidecar.admin_address(), "/metrics").await?;
        Ok(text.lines().any(|line| line == "preload_watchers 80").then_some(()))
    })
    .await?;
    let ended = cancelled(&sidecar, "a").await?;
    while let Some(watched) = watchers.join_next().await {
        let (seen, error) = watched??;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(seen.first().context("a message")?.state(), State::Queued, "the present state, at once");
        assert_eq!(seen.last(), Some(&ended));
    }
    let (seen, error) = watch(sidecar.client()?, "a".to_owned(), true).await?;
    assert_eq!((seen, error.map(|e| e.code())), (vec![ended], None), "after the end: one message");
    let unfinished: BTreeMap<String, State> = sidecar
        .client()?
        .list_loads(ListLoadsRequest::default())
        .await?
        .into_inner()
        .loads
        .into_iter()
        .map(|load| (load.id.clone(), load.state()))
        .collect();
    assert_eq!(unfinished["first"], State::Waiting);
    Ok(())
}
