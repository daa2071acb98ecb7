//! What a load does: copies, top-ups, and how loads share the sidecar.

use crate::history;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::{
    DeleteLoadRequest, ListFailuresRequest, ListLoadsRequest, Load, StartLoadRequest, WatchLoadRequest,
};
use anyhow::{Context, Result, ensure};
use preload_tests::{Data, MIB, Sidecar, http, load, shared, wait};
use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;
use tonic::Code;

const NOTHING: &[&str] = &[];

/// The states of a load whose first attempt did it all.
const AT_ONCE: [State; 6] =
    [State::Queued, State::Waiting, State::Listing, State::Loading, State::Verifying, State::Loaded];

async fn loaded(sidecar: &Sidecar<'_>, request: StartLoadRequest) -> Result<Load> {
    let id = sidecar.start_load(request).await?.id;
    let load = sidecar.in_state(&id, State::Loaded).await?;
    history::assert_complete(&load)?;
    Ok(load)
}

fn assert_all_cached(load: &Load, files: u64, bytes: u64) {
    let progress = load.progress.unwrap_or_default();
    assert_eq!((progress.files_total, progress.files_cached, progress.files_failed), (files, files, 0));
    assert_eq!((progress.bytes_total, progress.bytes_cached, progress.bytes_failed), (bytes, bytes, 0));
    assert!(progress.totals_exact && progress.cached_exact);
    assert_eq!((progress.bytes_per_second, progress.eta, load.failures), (0, None, 0));
}

async fn metric(sidecar: &Sidecar<'_>, name: &str) -> Result<f64> {
    let (_, text) = http::get(sidecar.admin_address(), "/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" 0");
    line.trim().parse().with_context(|| format!("{name} {line}"))
}

#[tokio::test]
async fn a_sub_path_alone_is_loaded_then_gets_a_second_copy() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("sub-path")?;
    let inside = data.below("inside")?;
    inside.files(6, 100_000)?;
    let large = inside.file("large", 20 * MIB)?;
    // Its name begins like the other's.
    let beside = data.below("inside-not")?;
    beside.files(6, 100_000)?;
    let length = 6 * 100_000 + 20 * MIB;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;

    let one = loaded(&sidecar, load("one", inside.path(), 1)).await?;
    assert_eq!(history::states(&one), AT_ONCE);
    assert_eq!((one.attempt, one.reason(), one.message.as_str()), (1, Reason::Unspecified, ""));
    assert!(!one.cluster.is_empty() && !one.engine_reason.is_empty());
    assert_all_cached(&one, 7, length);
    cluster.oracle().assert_loaded(inside.path(), 1).await?;
    assert_eq!(cluster.oracle().copies(beside.path()).await?.most(), 0);
    let listed = cluster.oracle().fs_ls(data.path()).await?;
    assert_eq!(listed.len(), 13);
    for (path, file) in &listed {
        let cached = path.starts_with(&format!("{}/", inside.path()));
        assert_eq!(file.percentage, if cached { 100 } else { 0 }, "{path}");
    }

    let two = loaded(&sidecar, load("two", inside.path(), 2)).await?;
    assert_all_cached(&two, 7, 2 * length);
    cluster.oracle().assert_loaded(inside.path(), 2).await?;
    assert_eq!(cluster.oracle().copies(&large).await?.blocks().count(), 2, "of 16 MiB at most");
    assert_eq!(cluster.oracle().copies(beside.path()).await?.most(), 0);
    assert_eq!(sidecar.get_load("one").await?, one, "the other load stays as it was");
    sidecar.assert_quiet()
}

#[tokio::test]
async fn two_copies_of_cold_data() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("two-copies")?;
    data.files(30, 16_000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let load = loaded(&sidecar, load("a", data.path(), 2)).await?;
    assert_all_cached(&load, 30, 2 * 30 * 16_000);
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_cached_path_is_loaded_without_an_attempt() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cached")?;
    data.files(5, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let first = loaded(&sidecar, load("first", data.path(), 1)).await?;
    assert_eq!(first.attempt, 1);
    let again = loaded(&sidecar, load("again", data.path(), 1)).await?;
    let states = [State::Queued, State::Waiting, State::Listing, State::Verifying, State::Loaded];
    assert_eq!(history::states(&again), states);
    assert_eq!(again.attempt, 0);
    assert_all_cached(&again, 5, 5000);
    assert_eq!(metric(&sidecar, r#"preload_commands_total{exit="0"}"#).await?, 1.0, "one command ran");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn other_calls_are_served_while_a_load_is_loading() -> Result<()> {
    let cluster = shared().await?;
    let (data, other) = (cluster.data("asynchronous")?, cluster.data("asynchronous-other")?);
    data.files(60, 1000)?;
    other.files(3, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let started = sidecar.start_load(load("a", data.path(), 1)).await?;
    assert_eq!(started.state(), State::Queued);
    sidecar.in_state("a", State::Loading).await?;

    assert_eq!(sidecar.get_load("a").await?.state(), State::Loading);
    let all = sidecar.client()?.list_loads(ListLoadsRequest::default()).await?.into_inner().loads;
    assert_eq!(
        all.iter().map(|load| (load.id.as_str(), load.state())).collect::<Vec<_>>(),
        [("a", State::Loading)]
    );
    let second = sidecar.start_load(load("b", other.path(), 1)).await?;
    assert!(matches!(second.state(), State::Queued | State::Waiting), "{second:?}");
    assert_eq!(sidecar.get_load("a").await?.state(), State::Loading, "all of that was served meanwhile");

    for (id, data) in [("a", &data), ("b", &other)] {
        history::assert_complete(&sidecar.in_state(id, State::Loaded).await?)?;
        cluster.oracle().assert_loaded(data.path(), 1).await?;
    }
    sidecar.assert_quiet()
}

/// How many of the runs overlap at most.
fn most_at_once(runs: &[(SystemTime, SystemTime)]) -> usize {
    let at = |time: SystemTime| runs.iter().filter(|(begin, end)| *begin <= time && time < *end).count();
    runs.iter().map(|(begin, _)| at(*begin)).max().unwrap_or(0)
}

#[tokio::test]
async fn of_eight_loads_four_run_at_once() -> Result<()> {
    let cluster = shared().await?;
    let parent = cluster.data("eight")?;
    let parts: Vec<Data> = (0..8).map(|n| parent.below(&format!("part{n}"))).collect::<Result<_>>()?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    for (number, part) in parts.iter().enumerate() {
        part.files(4, 1000)?;
        sidecar.start_load(load(&number.to_string(), part.path(), 1)).await?;
    }
    let mut runs = Vec::new();
    for number in 0..parts.len() {
        let load = sidecar.in_state(&number.to_string(), State::Loaded).await?;
        history::assert_complete(&load)?;
        runs.push(history::run_of(&load)?);
    }
    assert_eq!(most_at_once(&runs), 4, "{runs:?}");
    cluster.oracle().assert_loaded(parent.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn overlapping_paths_run_one_after_the_other() -> Result<()> {
    let cluster = shared().await?;
    let (data, other) = (cluster.data("overlap")?, cluster.data("overlap-other")?);
    let below = data.below("below")?;
    below.files(3, 1000)?;
    data.files(3, 1000)?;
    other.files(1, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let requests = [
        load("0", below.path(), 1),
        load("1", data.path(), 1),
        load("2", below.path(), 2),
        load("3", other.path(), 1),
    ];
    for request in requests {
        sidecar.start_load(request).await?;
    }
    let mut runs = Vec::new();
    for id in ["0", "1", "2", "3"] {
        runs.push(history::run_of(&sidecar.in_state(id, State::Loaded).await?)?);
    }
    for pair in runs[..3].windows(2) {
        assert!(pair[0].1 <= pair[1].0, "in the order of their coming, never at once: {runs:?}");
    }
    assert!(runs[3].0 < runs[0].1, "a load elsewhere does not wait for them: {runs:?}");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    cluster.oracle().assert_loaded(below.path(), 2).await?;
    cluster.oracle().assert_loaded(other.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn the_same_wish_64_times_at_once_is_one_load() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("same")?;
    data.files(5, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let mut calls = tokio::task::JoinSet::new();
    let shared_client = sidecar.client()?;
    for number in 0..64 {
        let mut client = if number % 2 == 0 { sidecar.client()? } else { shared_client.clone() };
        let request = load("a", data.path(), 1);
        calls.spawn(async move { client.start_load(request).await.map(tonic::Response::into_inner) });
    }
    let mut uids = BTreeSet::new();
    while let Some(call) = calls.join_next().await {
        uids.insert(call??.uid);
    }
    assert_eq!(uids.len(), 1, "{uids:?}");
    let load = sidecar.in_state("a", State::Loaded).await?;
    history::assert_complete(&load)?;
    assert!(uids.contains(&load.uid));
    assert_eq!(history::states(&load), AT_ONCE);
    let all = sidecar.client()?.list_loads(ListLoadsRequest::default()).await?.into_inner().loads;
    assert_eq!(all, [load]);
    assert_eq!(metric(&sidecar, r#"preload_commands_total{exit="0"}"#).await?, 1.0);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn files_that_are_gone_are_listed_page_by_page() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("gone")?;
    data.files(8, 1000)?;
    // Alluxio knows all of them before five go.
    assert_eq!(cluster.oracle().tree(data.path()).await?.paths().len(), 8);
    for number in 0..5 {
        fs::remove_file(data.ufs().join(format!("f{number:05}")))?;
    }
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let mut request = load("a", data.path(), 1);
    request.spec.as_mut().context("the spec")?.max_attempts = 1;
    sidecar.start_load(request).await?;
    let failed = sidecar.in_state("a", State::Failed).await?;
    history::assert_complete(&failed)?;
    assert_eq!((failed.reason(), failed.failures, failed.attempt), (Reason::Incomplete, 5, 1));
    let error = failed.error.clone().context("the error")?;
    assert_eq!((error.code, &error.message), (i32::from(Code::DataLoss), &failed.message));
    let progress = failed.progress.context("the progress")?;
    assert_eq!((progress.files_total, progress.files_cached, progress.files_failed), (8, 3, 5));
    assert_eq!((progress.bytes_total, progress.bytes_cached, progress.bytes_failed), (8000, 3000, 5000));

    let mut client = sidecar.client()?;
    let (mut pages, mut paths, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListFailuresRequest { load_id: "a".to_owned(), page_size: 2, page_token };
        let page = client.list_failures(request).await?.into_inner();
        assert_eq!(page.total, 5);
        for failure in &page.failures {
            assert_eq!((failure.length, failure.bytes_missing, failure.replicas_seen), (1000, 1000, 0));
            assert!(failure.reason.contains("no copy"), "{failure:?}");
        }
        pages.push(page.failures.len());
        paths.extend(page.failures.into_iter().map(|failure| failure.path));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [2, 2, 1]);
    paths.sort();
    let gone: Vec<_> = (0..5).map(|number| format!("{}/f{number:05}", data.path())).collect();
    assert_eq!(paths, gone);
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!(copies.missing(1), gone, "the second route sees the same");
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn watchers_see_every_load_to_its_end_and_beyond() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("watched")?;
    data.files(30, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let request = |follow| WatchLoadRequest { load_id: "a".to_owned(), follow, after_sequence: 0 };
    let mut client = sidecar.client()?;
    let unknown = client.watch_load(request(false)).await.err().context("there is no such load yet")?;
    assert_eq!(unknown.code(), Code::NotFound);

    sidecar.start_load(load("a", data.path(), 1)).await?;
    let mut before = client.watch_load(request(false)).await?.into_inner();
    let mut following = client.watch_load(request(true)).await?.into_inner();
    sidecar.in_state("a", State::Loading).await?;
    let mut during = client.watch_load(request(false)).await?.into_inner();
    assert!(during.message().await?.context("the present state")?.state() != State::Queued);

    let mut ends = Vec::new();
    for stream in [&mut before, &mut during] {
        let (mut last, mut states) = (Load::default(), BTreeSet::new());
        while let Some(load) = stream.message().await? {
            ensure!(load.sequence >= last.sequence, "{load:?} after {last:?}");
            states.insert(load.state());
            last = load;
        }
        assert!(states.contains(&State::Loading), "{states:?}");
        ends.push(last);
    }
    let end = sidecar.get_load("a").await?;
    assert_eq!(end.state(), State::Loaded);
    history::assert_complete(&end)?;
    assert_eq!(history::states(&end), AT_ONCE);
    assert_eq!(ends, [end.clone(), end.clone()]);
    let mut after = client.watch_load(request(false)).await?.into_inner();
    assert_eq!(after.message().await?.as_ref(), Some(&end));
    assert_eq!(after.message().await?, None);
    let mut following_late = client.watch_load(request(true)).await?.into_inner();
    assert_eq!(following_late.message().await?.as_ref(), Some(&end));

    let mut last = Load::default();
    while last.state() != State::Loaded {
        let load = following.message().await?.context("a stream that follows stays open")?;
        ensure!(load.sequence >= last.sequence, "{load:?} after {last:?}");
        last = load;
    }
    assert_eq!(last, end);
    assert_eq!(metric(&sidecar, "preload_watchers").await?, 2.0, "both followers are still there");
    client.delete_load(DeleteLoadRequest { load_id: "a".to_owned() }).await?;
    for stream in [&mut following, &mut following_late] {
        let end = tokio::time::timeout(wait::LIMIT, stream.message()).await?;
        assert_eq!(end.err().context("it ends with the load")?.code(), Code::NotFound);
    }
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_finished_load_does_not_start_again() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("once")?;
    let path = data.file("file", 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let first = loaded(&sidecar, load("a", &path, 1)).await?;
    cluster.alluxio(&["fs", "free", &path]).await?.success()?;
    let mut again = load("a", &path, 1);
    again.spec.as_mut().context("the spec")?.min_workers = 2;
    assert_eq!(sidecar.start_load(again).await?, first);
    assert_eq!(sidecar.get_load("a").await?, first);
    assert_eq!(metric(&sidecar, r#"preload_commands_total{exit="0"}"#).await?, 1.0);
    sidecar.assert_quiet()
}
