//! A warm cache stays true: VerifyLoad and `reverify_interval` find what has left, and nothing else withdraws.

use crate::history::at;
use crate::outcome::{PATIENCE, failures, loaded, shown, waits, wish};
use crate::support::{free, job_service, status_of};
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::{Load, VerifyLoadRequest, WatchLoadRequest};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use preload_tests::{Cluster, MIB, Options, Role, Sidecar, grpcurl, http, load, shared, wait};
use std::time::SystemTime;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const NO_ARGUMENTS: [&str; 0] = [];

/// VerifyLoad.
async fn verify(sidecar: &Sidecar<'_>, id: &str) -> Result<Load> {
    let request = VerifyLoadRequest { load_id: id.to_owned() };
    Ok(sidecar.client()?.verify_load(request).await?.into_inner())
}

/// VerifyLoad was refused with this code and this reason.
async fn refused(sidecar: &Sidecar<'_>, id: &str, code: Code, reason: &str) -> Result<Status> {
    let status = status_of(verify(sidecar, id).await)?;
    ensure!(status.code() == code, "not {code:?}: {status:?}");
    let info = status.get_details_error_info().context("no ErrorInfo")?;
    ensure!(info.reason == reason && info.domain == "preload.dev", "not {reason}: {info:?}");
    let retry = status.get_details_retry_info().is_some();
    ensure!(retry == (code == Code::Unavailable), "RetryInfo is for what passes: {status:?}");
    Ok(status)
}

/// VerifyLoad until an answer is given; as long as none can be, the load stays LOADED. For a minute after a
/// master has begun nothing is proven to be gone.
pub(crate) async fn judged(sidecar: &Sidecar<'_>, id: &str) -> Result<Load> {
    wait::until(&format!("a verdict on {id}"), PATIENCE, async || {
        let status = match verify(sidecar, id).await {
            Ok(load) => return Ok(Some(load)),
            Err(error) => status_of::<()>(Err(error))?,
        };
        let kept = sidecar.get_load(id).await?;
        match status.code() {
            // Somebody else's check was first.
            Code::FailedPrecondition => Ok(Some(kept)),
            Code::Unavailable if kept.state() == State::Loaded => bail!("{status:?}"),
            // It was judged since.
            Code::Unavailable => Ok(Some(kept)),
            _ => Err(status.into()),
        }
    })
    .await
}

fn verified(load: &Load) -> Result<SystemTime> {
    at(load.verify_time).with_context(|| shown(load))
}

/// The load once a later check than that of `before` has found everything.
async fn later(sidecar: &Sidecar<'_>, id: &str, before: &Load) -> Result<Load> {
    let seen = verified(before)?;
    sidecar.reaches(id, |load| verified(load).is_ok_and(|time| time > seen)).await
}

/// STALE because exactly these files of `size` bytes are gone, of `total`.
pub(crate) async fn assert_evicted(
    sidecar: &Sidecar<'_>,
    stale: &Load,
    paths: &[String],
    size: u64,
    total: u64,
) -> Result<()> {
    ensure!((stale.state(), stale.reason()) == (State::Stale, Reason::Evicted), "{}", shown(stale));
    let (gone, progress) = (paths.len() as u64, stale.progress.context("progress")?);
    assert_eq!(
        (progress.files_total, progress.files_cached, progress.files_failed),
        (total, total - gone, gone)
    );
    assert_eq!((progress.bytes_cached, progress.bytes_failed), ((total - gone) * size, gone * size));
    assert!(progress.totals_exact && progress.cached_exact);
    let words = format!("{gone} of {total} files (");
    assert!(stale.message.starts_with(&words) && stale.message.contains("have left the cache"), "{stale:?}");
    let named = failures(sidecar, &stale.id).await?;
    assert_eq!(named.iter().map(|file| &file.path).collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
    for file in named {
        assert_eq!((file.length, file.bytes_missing, file.replicas_seen), (size, size, 0), "{file:?}");
    }
    assert_eq!(stale.failures, gone);
    Ok(())
}

#[tokio::test]
async fn a_check_finds_what_has_left_the_cache() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("reverify")?;
    data.files(20, 9000)?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    let first = loaded(&sidecar, "a").await?;
    assert_eq!(at(first.end_time)?, verified(&first)?, "LOADED is the first verification");

    let request = WatchLoadRequest { load_id: "a".into(), follow: true, ..Default::default() };
    let mut following = sidecar.client()?.watch_load(request).await?.into_inner();
    let again = verify(&sidecar, "a").await?;
    assert_eq!((again.state(), again.failures), (State::Loaded, 0), "{}", shown(&again));
    assert!(verified(&again)? > verified(&first)? && again.sequence > first.sequence);
    assert_eq!((again.end_time, &again.transitions), (first.end_time, &first.transitions));
    let progress = again.progress.context("progress")?;
    assert_eq!((progress.files_cached, progress.bytes_cached), (20, 180_000));
    assert_eq!(sidecar.get_load("a").await?, again, "what was answered is what is stored");

    let gone = ["f00003", "f00007", "f00011"].map(|name| format!("{}/{name}", data.path()));
    free(cluster, &gone).await?;
    assert_eq!(sidecar.get_load("a").await?.state(), State::Loaded, "nobody has looked");
    let stale = judged(&sidecar, "a").await?;
    assert_evicted(&sidecar, &stale, &gone, 9000, 20).await?;
    assert_eq!(stale.verify_time, again.verify_time, "when all was last seen in place");
    let mut last = None;
    while let Some(load) = following.message().await? {
        last = Some(load);
    }
    assert_eq!(last.as_ref(), Some(&stale), "who follows hears of it, and the stream ends");
    let status = refused(&sidecar, "a", Code::FailedPrecondition, "LOAD_NOT_LOADED").await?;
    assert!(status.message().contains("another id"), "{status:?}");

    let (_, metrics) = http::get(sidecar.admin_address(), "/metrics").await?;
    for line in ["{outcome=\"loaded\"} 1", "{outcome=\"evicted\"} 1"] {
        assert!(metrics.contains(&format!("preload_verifications_total{line}")), "{line} in {metrics}");
    }
    assert!(
        metrics.contains("preload_load_transitions_total{to=\"stale\",reason=\"evicted\"} 1"),
        "{metrics}"
    );

    sidecar.kill9().await?;
    sidecar.restart().await?;
    let kept = sidecar.get_load("a").await?;
    assert_eq!(kept, stale, "what was withdrawn stays withdrawn");
    assert_evicted(&sidecar, &kept, &gone, 9000, 20).await?;
    let whole = verify_of_new(&sidecar, "b", data.path()).await?;
    assert_eq!(whole.progress.context("progress")?.files_cached, 20);
    sidecar.assert_no_errors()
}

/// A new load brings back what is missing.
async fn verify_of_new(sidecar: &Sidecar<'_>, id: &str, path: &str) -> Result<Load> {
    sidecar.start_load(load(id, path, 1)).await?;
    loaded(sidecar, id).await?;
    let load = verify(sidecar, id).await?;
    ensure!(load.state() == State::Loaded, "{}", shown(&load));
    Ok(load)
}

#[tokio::test]
async fn loads_are_checked_by_themselves() -> Result<()> {
    let cluster = shared().await?;
    let (data, other) = (cluster.data("by-itself")?, cluster.data("never")?);
    data.files(5, 4000)?;
    other.files(2, 4000)?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    for id in ["a", "b"] {
        sidecar.start_load(wish(id, data.path(), 1, |spec| spec.reverify_interval = second)?).await?;
    }
    sidecar.start_load(load("never", other.path(), 1)).await?;
    let never = loaded(&sidecar, "never").await?;
    for id in ["a", "b"] {
        let first = loaded(&sidecar, id).await?;
        assert_eq!(first.spec.as_ref().context("a spec")?.reverify_interval, second);
        later(&sidecar, id, &first).await?;
    }
    // The interval is no part of the wish: the same id may ask for another, and nothing changes.
    let same = sidecar.start_load(load("a", data.path(), 1)).await?;
    assert_eq!(same.spec.context("a spec")?.reverify_interval, second);

    // A restart forgets nothing, and what left meanwhile is found.
    let before = sidecar.get_load("a").await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    later(&sidecar, "a", &before).await?;
    sidecar.kill9().await?;
    let gone = [format!("{}/f00002", data.path())];
    free(cluster, &[gone.as_slice(), &[format!("{}/f00001", other.path())]].concat()).await?;
    sidecar.restart().await?;
    for id in ["a", "b"] {
        let stale = sidecar.reaches(id, |load| load.state() == State::Stale).await?;
        assert_evicted(&sidecar, &stale, &gone, 4000, 5).await?;
    }
    assert_eq!(sidecar.get_load("never").await?, never, "nobody asked for a check");

    sidecar.start_load(wish("c", data.path(), 1, |spec| spec.reverify_interval = second)?).await?;
    loaded(&sidecar, "c").await?;
    // Another file: a worker (2.9.3) that removes a block before it has noted that it does so ignores every later
    // order to remove the same block.
    let gone = [format!("{}/f00003", data.path())];
    free(cluster, &gone).await?;
    let stale = sidecar.reaches("c", |load| load.state() == State::Stale).await?;
    assert_evicted(&sidecar, &stale, &gone, 4000, 5).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_check_that_is_cut_short_leaves_loaded() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("cut-short")?;
    data.files(300, 100)?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    loaded(&sidecar, "a").await?;
    cluster.alluxio(&["fs", "free", "-f", data.path()]).await?.success()?;
    let gone: Vec<_> = (0..300).map(|n| format!("{}/f{n:05}", data.path())).collect();
    free(cluster, &gone[299..]).await?;
    // The master forgets them in no order; the last call above only makes it likely.
    free_all(cluster, data.path()).await?;
    for _ in 0..3 {
        let mut client = sidecar.client()?;
        let request = VerifyLoadRequest { load_id: "a".into() };
        let checking = tokio::spawn(async move { client.verify_load(request).await.map(drop) });
        tokio::task::yield_now().await;
        sidecar.kill9().await?;
        let answered = checking.await?.is_ok();
        sidecar.restart().await?;
        let state = sidecar.get_load("a").await?.state();
        ensure!(state == State::Stale || (state == State::Loaded && !answered), "{state:?} after {answered}");
        if state == State::Stale {
            break;
        }
    }
    let mut stale = sidecar.get_load("a").await?;
    if stale.state() == State::Loaded {
        stale = judged(&sidecar, "a").await?;
    }
    // Nothing of the lists that were cut short is in this one.
    let mut named: Vec<_> = failures(&sidecar, "a").await?.into_iter().map(|file| file.path).collect();
    named.sort();
    assert_eq!(named, gone);
    assert_eq!((stale.state(), stale.failures), (State::Stale, 300), "{}", shown(&stale));
    sidecar.assert_no_errors()
}

/// Waits until nothing below `path` is cached.
async fn free_all(cluster: &Cluster, path: &str) -> Result<()> {
    wait::until("everything to leave the cache", wait::LIMIT, async || {
        let mut listing = job_service(cluster).list(path, alluxio_client::LoadMetadata::Never).await?;
        while let Some(file) = listing.next().await? {
            ensure!(file.blocks.iter().all(|block| block.workers.is_empty()), "{} is cached", file.path);
        }
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn many_ask_at_once() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("many-checks")?;
    data.files(10, 1000)?;
    let mut sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    loaded(&sidecar, "a").await?;
    let client = sidecar.client()?;
    let ask = || {
        let (mut client, load_id) = (client.clone(), "a".to_owned());
        tokio::spawn(async move { client.verify_load(VerifyLoadRequest { load_id }).await })
    };
    let asked: Vec<_> = (0..200).map(|_| ask()).collect();
    for answer in asked {
        assert_eq!(answer.await??.into_inner().state(), State::Loaded);
    }
    let (_, metrics) = http::get(sidecar.admin_address(), "/metrics").await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("preload_verifications_total{outcome=\"loaded\"} "));
    let checks: u32 = line.context("a count")?.parse()?;
    assert!(checks < 200, "{checks} checks for 200 callers: none was shared");

    // What leaves before a call is found by that call, whatever was under way.
    let asked: Vec<_> = (0..50).map(|_| ask()).collect();
    free(cluster, &[format!("{}/f00004", data.path())]).await?;
    // One of those that were asked before may have found it first.
    if sidecar.get_load("a").await?.state() == State::Loaded {
        let found = judged(&sidecar, "a").await?;
        assert_eq!(found.state(), State::Stale, "{}", shown(&found));
    }
    for answer in asked {
        let _either_is_true = answer.await?;
    }
    assert_eq!(sidecar.get_load("a").await?.state(), State::Stale);

    sidecar.start_load(load("b", data.path(), 1)).await?;
    loaded(&sidecar, "b").await?;
    let asked: Vec<_> = (0..20).map(|_| ask()).collect();
    assert_eq!(sidecar.terminate().await?, preload_tests::Exit::Code(0), "a check holds up no shutdown");
    for answer in asked {
        let _refused_or_cut = answer.await?;
    }
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn only_loaded_is_checked() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("unchecked")?;
    data.files(3, 1000)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    refused(&sidecar, "nobody", Code::NotFound, "LOAD_NOT_FOUND").await?;
    let status = status_of(verify(&sidecar, "No-Name").await)?;
    assert_eq!(status.get_details_bad_request().context("BadRequest")?.field_violations[0].field, "load_id");

    sidecar.start_load(load("waits", data.path(), 9)).await?;
    waits(&sidecar, "waits", Reason::WorkersMissing).await?;
    let status = refused(&sidecar, "waits", Code::FailedPrecondition, "LOAD_NOT_LOADED").await?;
    assert!(status.message().contains("WatchLoad"), "{status:?}");
    sidecar.start_load(load("fails", "/no/such/path", 1)).await?;
    sidecar.in_state("fails", State::Failed).await?;
    let status = refused(&sidecar, "fails", Code::FailedPrecondition, "LOAD_NOT_LOADED").await?;
    assert!(status.message().contains("another id"), "{status:?}");
    assert_eq!(status.get_details_error_info().context("info")?.metadata["state"], "FAILED");

    let short = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
    let request = wish("short", data.path(), 1, |spec| spec.reverify_interval = short)?;
    let status = status_of(sidecar.start_load(request).await)?;
    let violations = status.get_details_bad_request().context("BadRequest")?.field_violations;
    assert_eq!(violations[0].field, "spec.reverify_interval");
    assert!(violations[0].description.contains("1s or more"), "{violations:?}");

    // As a person would, without the .proto files.
    let other = cluster.data("checked")?;
    other.files(3, 1000)?;
    sidecar.start_load(load("whole", other.path(), 1)).await?;
    loaded(&sidecar, "whole").await?;
    let method = "preload.v1.PreloadService/VerifyLoad";
    let arguments = ["-plaintext", "-d", r#"{"load_id": "whole"}"#, sidecar.address(), method];
    let answer = grpcurl(cluster.sandbox(), &arguments).await?.success()?;
    assert!(answer.contains("\"LOADED\"") && answer.contains("verifyTime"), "{answer}");
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn what_was_deleted_is_not_asked_for_and_a_path_that_is_gone_is_withdrawn() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("deleted")?;
    data.files(4, 1000)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    loaded(&sidecar, "a").await?;
    cluster.alluxio(&["fs", "rm", &format!("{}/f00001", data.path())]).await?.success()?;
    let fewer = verify(&sidecar, "a").await?;
    assert_eq!(fewer.state(), State::Loaded, "{}", shown(&fewer));
    let progress = fewer.progress.context("progress")?;
    assert_eq!((progress.files_total, progress.files_cached, progress.bytes_total), (3, 3, 3000));

    // What has come since is not in the cache either, and the message does not say that it left.
    data.file("new", 500)?;
    cluster.alluxio(&["fs", "loadMetadata", "-R", "-F", data.path()]).await?.success()?;
    let stale = judged(&sidecar, "a").await?;
    assert_eq!((stale.state(), stale.reason(), stale.failures), (State::Stale, Reason::Evicted, 1));
    assert!(stale.message.contains("1 more are there than were loaded"), "{}", shown(&stale));

    sidecar.start_load(load("b", data.path(), 1)).await?;
    loaded(&sidecar, "b").await?;
    cluster.alluxio(&["fs", "rm", "-R", data.path()]).await?.success()?;
    let stale = verify(&sidecar, "b").await?;
    assert_eq!((stale.state(), stale.reason()), (State::Stale, Reason::PathNotFound), "{}", shown(&stale));
    assert!(stale.message.contains(data.path()), "{}", shown(&stale));
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn silence_proves_nothing_and_a_lost_worker_does() -> Result<()> {
    // The master gives up a worker after 20 s, instead of five minutes.
    let properties = [
        ("alluxio.master.worker.timeout", "20sec"),
        ("alluxio.master.lost.worker.detection.interval", "1sec"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start(Options { properties, block_size: MIB, ..Options::default() }).await?;
    let data = cluster.data("silence")?;
    data.files(40, 10_000)?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    sidecar.start_load(load("a", data.path(), 1)).await?;
    let first = loaded(&sidecar, "a").await?;
    let copies = cluster.oracle().copies(data.path()).await?;
    let on_second: Vec<_> =
        copies.files.iter().filter(|(_, blocks)| blocks[0].workers == [2].into()).collect();
    let on_second: Vec<String> = on_second.into_iter().map(|(path, _)| path.clone()).collect();
    ensure!(!on_second.is_empty() && on_second.len() < 40, "{on_second:?}");

    cluster.signal(Role::Worker(2), Signal::SIGSTOP)?;
    let status = refused(&sidecar, "a", Code::Unavailable, "WORKERS_MISSING").await?;
    assert!(status.message().contains(&cluster.address(Role::Worker(2))), "{status:?}");
    cluster.signal(Role::Worker(2), Signal::SIGCONT)?;
    let back = judged(&sidecar, "a").await?;
    assert_eq!(back.state(), State::Loaded, "it came back with its blocks: {}", shown(&back));

    cluster.kill(Role::Master, Signal::SIGKILL).await?;
    refused(&sidecar, "a", Code::Unavailable, "ALLUXIO_UNREACHABLE").await?;
    let kept = sidecar.get_load("a").await?;
    assert_eq!((kept.state(), kept.verify_time), (State::Loaded, back.verify_time));
    assert!(verified(&kept)? > verified(&first)?);
    // A master that has just begun knows of no block yet.
    cluster.start_role(Role::Master).await?;
    let back = judged(&sidecar, "a").await?;
    assert_eq!(back.state(), State::Loaded, "{}", shown(&back));

    cluster.kill(Role::Worker(2), Signal::SIGKILL).await?;
    let stale = judged(&sidecar, "a").await?;
    assert_evicted(&sidecar, &stale, &on_second, 10_000, 40).await?;
    assert_eq!(stale.verify_time, back.verify_time);
    sidecar.assert_no_errors()?;
    drop(sidecar);
    cluster.stop()
}
