//! Wishes that cannot be met, or not by the command alone: known before the load starts, or made up for after.

use crate::outcome::{
    PATIENCE, begin, failed, failures, loaded, loadings, shown, visited, wait_at_most, waits, wish,
};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::{Reason, State};
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Data, MIB, Options, Sidecar, load as request, shared, wait};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use tonic::Code;
use tonic_types::StatusExt;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];

// === room ===

#[tokio::test]
async fn data_larger_than_the_cache_evict_nothing() -> Result<()> {
    // 64 MiB in all.
    let options = Options { worker_quota: 32 * MIB, block_size: MIB, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let others = cluster.data("others")?;
    others.files(8, MIB)?;
    begin(&sidecar, "others", others.path(), 2).await?;
    loaded(&sidecar, "others").await?;
    cluster.oracle().assert_loaded(others.path(), 2).await?;

    let large = cluster.data("large")?;
    large.files(5, 16 * MIB)?;
    for (id, allow_evict, kind) in [("free", false, "free"), ("evict", true, "in all")] {
        let wish = wish(id, large.path(), 1, |spec| {
            spec.allow_evict = allow_evict;
            wait_at_most(spec, 2);
        });
        sidecar.start_load(wish?).await?;
        let load = failed(&sidecar, id, Reason::GateTimedOut).await?;
        ensure!(visited(&load).contains(&(State::Waiting, Reason::NotEnoughRoom)), "{}", shown(&load));
        assert_eq!((loadings(&load), load.attempt), (0, 0), "{}", shown(&load));
        assert!(
            load.message.contains("80.0 MiB are needed") && load.message.contains(kind),
            "{}",
            load.message
        );
        let progress = load.progress.context("progress")?;
        assert_eq!((progress.bytes_total, progress.bytes_cached, progress.totals_exact), (80 * MIB, 0, true));
    }
    assert_eq!(cluster.oracle().copies(large.path()).await?.most(), 0);
    cluster.oracle().assert_loaded(others.path(), 2).await?;

    // 48 MiB are free: enough for any one of these, for no two of them.
    let mut rivals = vec!["a", "b", "c"];
    for id in &rivals {
        let data = cluster.data(id)?;
        data.files(30, MIB)?;
        begin(&sidecar, id, data.path(), 1).await?;
    }
    let first = one_of_is_loaded(&sidecar, &rivals).await?;
    rivals.retain(|id| *id != first.id);
    for id in &rivals {
        let waiting = waits(&sidecar, id, Reason::NotEnoughRoom).await?;
        assert_eq!(loadings(&waiting), 0, "its room was promised to {}: {}", first.id, shown(&waiting));
    }
    cluster.oracle().assert_loaded(path_of(&first)?, 1).await?;
    // Room that becomes free is taken by one of them.
    cluster.alluxio(&["fs", "free", path_of(&first)?]).await?.success()?;
    let second = one_of_is_loaded(&sidecar, &rivals).await?;
    cluster.oracle().assert_loaded(path_of(&second)?, 1).await?;
    cluster.oracle().assert_loaded(others.path(), 2).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn what_may_evict_takes_the_room_of_others() -> Result<()> {
    // 64 MiB in all.
    let options = Options { worker_quota: 32 * MIB, block_size: MIB, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let others = cluster.data("others")?;
    others.files(40, MIB)?;
    begin(&sidecar, "others", others.path(), 1).await?;
    loaded(&sidecar, "others").await?;

    let data = cluster.data("may-evict")?;
    data.files(40, MIB)?;
    sidecar.start_load(wish("may", data.path(), 1, |spec| spec.allow_evict = true)?).await?;
    loaded(&sidecar, "may").await?;
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    let left = cluster.oracle().copies(others.path()).await?;
    ensure!(left.missing(1).len() >= 16, "nothing was evicted: 80 MiB in 64 MiB?");
    sidecar.assert_no_errors()
}

async fn one_of_is_loaded(sidecar: &Sidecar<'_>, ids: &[&str]) -> Result<Load> {
    wait::until(&format!("one of {ids:?} to be loaded"), PATIENCE, async || {
        for id in ids {
            let load = sidecar.get_load(id).await?;
            if load.state() == State::Loaded {
                return Ok(Some(load));
            }
        }
        Ok(None)
    })
    .await
}

fn path_of(load: &Load) -> Result<&str> {
    Ok(&load.spec.as_ref().context("a load without a wish")?.path)
}

// === workers and replicas ===

#[tokio::test]
async fn more_replicas_than_workers_wait_and_zero_is_refused() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("replicas")?;
    for id in ["three", "huge", "min"] {
        data.below(id)?.files(3, KIB)?;
    }
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;

    for replicas in [0, u32::MAX] {
        let refused = sidecar.client()?.start_load(request("none", data.path(), replicas)).await;
        let refused = refused.err().with_context(|| format!("{replicas} replicas were accepted"))?;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let violations = refused.get_details_bad_request().context("no details")?.field_violations;
        assert_eq!(violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), ["spec.replicas"]);
    }

    let cases = [
        ("three", 3, 0, "2 of 3 workers are live; 3 replicas need 3 workers"),
        ("huge", 10_000, 0, "2 of 10000 workers are live; 10000 replicas need 10000 workers"),
        ("min", 1, 3, "2 of 3 workers are live; min_workers is 3"),
    ];
    for (id, replicas, min_workers, _) in cases {
        let wish = wish(id, data.below(id)?.path(), replicas, |spec| {
            spec.min_workers = min_workers;
            wait_at_most(spec, 10);
        });
        sidecar.start_load(wish?).await?;
    }
    for (id, _, _, message) in cases {
        let load = waits(&sidecar, id, Reason::WorkersMissing).await?;
        assert_eq!(load.message, message);
    }
    for (id, _, _, message) in cases {
        let load = failed(&sidecar, id, Reason::GateTimedOut).await?;
        assert_eq!(load.message, format!("waited 10 s: {message}"));
        assert_eq!((loadings(&load), load.attempt), (0, 0), "{}", shown(&load));
    }
    assert_eq!(cluster.oracle().copies(data.path()).await?.most(), 0);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn second_copies_that_the_command_leaves_out_are_topped_up() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("copies")?;
    data.files(300, 16 * KIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin(&sidecar, "copies", data.path(), 2).await?;
    let load = loaded(&sidecar, "copies").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    assert_eq!(load.attempt, 1, "a top-up is no attempt: {}", shown(&load));
    assert!(loadings(&load) > 1, "the first run made all copies; this test proves nothing: {}", shown(&load));
    assert_eq!(load.failures, 0);

    // From one copy to two, which the plain command never does.
    let one = cluster.data("one")?;
    one.files(20, 16 * KIB)?;
    begin(&sidecar, "one", one.path(), 1).await?;
    loaded(&sidecar, "one").await?;
    begin(&sidecar, "two", one.path(), 2).await?;
    loaded(&sidecar, "two").await?;
    cluster.oracle().assert_loaded(one.path(), 2).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn replication_limits_are_raised_where_copies_would_be_evicted() -> Result<()> {
    let checker = ("alluxio.master.replication.check.interval".to_owned(), "2sec".to_owned());
    let cluster = Cluster::start(Options { properties: vec![checker], ..Options::default() }).await?;
    let sidecar = Sidecar::start(&cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("limits")?;
    for (name, limit) in [("one", Some("1")), ("five", Some("5")), ("none", None)] {
        let below = data.below(name)?;
        below.files(3, 16 * KIB)?;
        if let Some(limit) = limit {
            // As a user would; it reaches the files that Alluxio knows.
            cluster.oracle().tree(below.path()).await?;
            let arguments = ["fs", "setReplication", "--max", limit, "-R", below.path()];
            cluster.alluxio(&arguments).await?.success()?;
        }
    }
    assert_eq!(limits(&cluster, &data).await?, ["1", "5", "-1"]);
    begin(&sidecar, "single", data.path(), 1).await?;
    loaded(&sidecar, "single").await?;
    assert_eq!(limits(&cluster, &data).await?, ["1", "5", "-1"], "one replica needs no other limit");

    begin(&sidecar, "double", data.path(), 2).await?;
    let double = loaded(&sidecar, "double").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    assert_eq!(limits(&cluster, &data).await?, ["2", "5", "-1"], "{}", shown(&double));

    // Alluxio evicts surplus copies: once it has done so here, it has looked at ours too.
    let surplus = cluster.data("surplus")?;
    surplus.files(3, 16 * KIB)?;
    begin(&sidecar, "surplus", surplus.path(), 2).await?;
    loaded(&sidecar, "surplus").await?;
    cluster.alluxio(&["fs", "setReplication", "--max", "1", "-R", surplus.path()]).await?.success()?;
    let tree = cluster.oracle().tree(surplus.path()).await?;
    wait::until("surplus copies to be evicted", PATIENCE, async || {
        let most = tree.copies()?.most();
        ensure!(most == 1, "a block has {most} copies");
        Ok(Some(()))
    })
    .await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    sidecar.assert_no_errors()
}

/// `replicationMax` of a file in each of the directories `one`, `five` and `none`, as `fs stat` says.
async fn limits(cluster: &Cluster, data: &Data) -> Result<Vec<String>> {
    let mut limits = Vec::new();
    for name in ["one", "five", "none"] {
        let path = format!("{}/{name}/f00001", data.path());
        let said = cluster.alluxio(&["fs", "stat", &path]).await?.success()?;
        let (_, limit) = said.split_once("replicationMax=").with_context(|| format!("no limit in {said}"))?;
        limits.push(limit.split(|c: char| c != '-' && !c.is_ascii_digit()).next().unwrap_or("").to_owned());
    }
    Ok(limits)
}

// === what Alluxio cannot show, or not yet ===

/// Alluxio skips names with `?` or `\`, and all of a directory that holds a name which is not UTF-8. Nobody
/// above it can see them: a documented limit. But a name with `\` also hides what is below its neighbours from
/// a recursive listing, though not from others.
#[tokio::test]
async fn names_that_alluxio_cannot_see() -> Result<()> {
    let cluster = shared().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("unseen")?;
    data.files(3, KIB)?;
    data.below("empty")?;
    let seen = ["below/seen", "below/deep/seen", "below/deep/deeper/seen"];
    let unseen = ["what?", "back\\slash", "below/what?", "below/deep/back\\slash", "wh?t/seen"];
    for name in seen.iter().chain(&unseen) {
        data.file(name, KIB)?;
    }
    begin(&sidecar, "unseen", data.path(), 1).await?;
    let load = loaded(&sidecar, "unseen").await?;
    assert_eq!(load.progress.context("progress")?.files_total, 6);
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!((copies.files.len(), copies.fewest()), (6, 1), "{copies:?}");

    let empty = cluster.data("not-utf-8")?;
    empty.files(3, KIB)?;
    fs::write(empty.ufs().join(OsStr::from_bytes(b"caf\xe9")), "latin 1")?;
    begin(&sidecar, "empty", empty.path(), 1).await?;
    let load = loaded(&sidecar, "empty").await?;
    assert_eq!(load.reason(), Reason::Empty, "{}", shown(&load));
    assert_eq!(load.message, format!("there are no data below {}", empty.path()));
    assert_eq!(load.progress.context("progress")?.files_total, 0);
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_named() -> Result<()> {
    let cluster = shared().await?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    let data = cluster.data("written")?;
    data.files(3, KIB)?;
    cluster.oracle().tree(data.path()).await?;
    let source = cluster.sandbox().folder("fifo")?.join("source");
    nix::unistd::mkfifo(&source, nix::sys::stat::Mode::S_IRWXU)?;
    let target = format!("{}/open", data.path());
    let arguments = ["fs", "copyFromLocal", &source.to_string_lossy(), &target];
    let writing = cluster.alluxio(&arguments);

    let judging = async {
        // Alluxio's client creates the file, then waits for us to write.
        let mut pipe = tokio::fs::OpenOptions::new().write(true).open(&source).await?;
        wait::until("the open file", wait::LIMIT, async || {
            let tree = cluster.oracle().tree(data.path()).await?;
            Ok(tree.paths().contains(target.as_str()).then_some(()))
        })
        .await?;
        sidecar.start_load(wish("open", data.path(), 1, |spec| spec.max_attempts = 1)?).await?;
        let load = failed(&sidecar, "open", Reason::Incomplete).await?;
        let failures = failures(&sidecar, "open").await?;
        assert_eq!(failures.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), [target.as_str()]);
        assert!(failures[0].reason.starts_with("the file is still being written"), "{failures:?}");
        assert_eq!(load.progress.context("progress")?.files_cached, 3);
        tokio::io::AsyncWriteExt::write_all(&mut pipe, &[7; 3000]).await?;
        tokio::io::AsyncWriteExt::flush(&mut pipe).await?;
        anyhow::Ok(())
    };
    let (written, judged) = tokio::join!(writing, judging);
    judged?;
    written?.success()?;
    // Alluxio writes it to the under file system, with which the oracle compares, some time after its end.
    wait::until("the file in the under file system", wait::LIMIT, async || {
        Ok((fs::metadata(data.ufs().join("open"))?.len() == 3000).then_some(()))
    })
    .await?;
    begin(&sidecar, "closed", data.path(), 1).await?;
    let load = loaded(&sidecar, "closed").await?;
    assert_eq!(load.progress.context("progress")?.files_cached, 4);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}
