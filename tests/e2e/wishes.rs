//! Wishes that cannot be met, or not by the command alone: known before the load starts, or made up for after.

mod room;
mod unseen;

use crate::outcome::{
    PATIENCE, assert_repaired, begin_with, failed, loaded, loadings, shown, wait_at_most, waits, wish,
};
use alluxio_preload_api::v1::load::Reason;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, ensure};
use preload_tests::{Cluster, Data, Options, Sidecar, load as request, shared, wait};
use tonic::Code;
use tonic_types::StatusExt;

const KIB: u64 = 1024;
const NO_ARGUMENTS: [&str; 0] = [];
const COMMAND: Engine = Engine::DistributedLoad;

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
    sidecar.assert_quiet()
}

#[tokio::test]
async fn second_copies_that_the_command_leaves_out_are_repaired() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("copies")?;
    data.files(300, 16 * KIB)?;
    let sidecar = Sidecar::start(cluster, &NO_ARGUMENTS).await?;
    begin_with(&sidecar, COMMAND, "copies", data.path(), 2).await?;
    let load = loaded(&sidecar, "copies").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    assert_repaired(&load).context("the command made all copies, which proves nothing")?;
    assert_eq!(load.failures, 0);

    // From one copy to two, which the command never does.
    let one = cluster.data("one")?;
    one.files(20, 16 * KIB)?;
    begin_with(&sidecar, COMMAND, "one", one.path(), 1).await?;
    loaded(&sidecar, "one").await?;
    begin_with(&sidecar, COMMAND, "two", one.path(), 2).await?;
    assert_repaired(&loaded(&sidecar, "two").await?)?;
    cluster.oracle().assert_loaded(one.path(), 2).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn replication_limits_are_raised_where_copies_would_be_evicted() -> Result<()> {
    limits_are_raised(COMMAND).await
}

#[tokio::test]
async fn replication_limits_are_raised_by_a_native_load() -> Result<()> {
    limits_are_raised(Engine::Native).await
}

async fn limits_are_raised(engine: Engine) -> Result<()> {
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
    begin_with(&sidecar, engine, "single", data.path(), 1).await?;
    loaded(&sidecar, "single").await?;
    assert_eq!(limits(&cluster, &data).await?, ["1", "5", "-1"], "one replica needs no other limit");

    begin_with(&sidecar, engine, "double", data.path(), 2).await?;
    let double = loaded(&sidecar, "double").await?;
    cluster.oracle().assert_loaded(data.path(), 2).await?;
    assert_eq!(limits(&cluster, &data).await?, ["2", "5", "-1"], "{}", shown(&double));

    // Alluxio evicts surplus copies: once it has done so here, it has looked at ours too.
    let surplus = cluster.data("surplus")?;
    surplus.files(3, 16 * KIB)?;
    begin_with(&sidecar, engine, "surplus", surplus.path(), 2).await?;
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
    sidecar.assert_quiet()
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
