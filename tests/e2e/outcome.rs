//! What tests ask of a load again and again: where it has been, what it lacks, and whether it told the truth.

use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load::{Reason, State, Transition};
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Failure, ListFailuresRequest, Load, LoadSpec, StartLoadRequest};
use anyhow::{Context, Result, bail, ensure};
use preload_tests::oracle::Tree;
use preload_tests::{Cluster, Copies, Sidecar, load, wait};
use std::collections::BTreeSet;
use std::time::Duration;

/// For loads that meet faults: several attempts, each with a JVM, while other clusters share the cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(400);

/// StartLoad with defaults for all but the engine, the path and the replicas.
pub(crate) async fn begin_with(
    sidecar: &Sidecar<'_>,
    engine: Engine,
    id: &str,
    path: &str,
    replicas: u32,
) -> Result<()> {
    sidecar.start_load(wish(id, path, replicas, |spec| spec.set_engine(engine))?).await.map(drop)
}

/// A request with `change` made to the wish.
pub(crate) fn wish(
    id: &str,
    path: &str,
    replicas: u32,
    change: impl FnOnce(&mut LoadSpec),
) -> Result<StartLoadRequest> {
    let mut request = load(id, path, replicas);
    change(request.spec.as_mut().context("a request without a wish")?);
    Ok(request)
}

/// Shut gates fail the load after `seconds`.
pub(crate) fn wait_at_most(spec: &mut LoadSpec, seconds: u64) {
    spec.wait_timeout = Duration::from_secs(seconds).try_into().ok();
}

/// The load once `condition` holds; an error when it ends before.
pub(crate) async fn reaches(
    sidecar: &Sidecar<'_>,
    id: &str,
    what: &str,
    condition: impl Fn(&Load) -> bool,
) -> Result<Load> {
    let load = wait::until(&format!("load {id} to be {what}"), PATIENCE, async || {
        let load = sidecar.get_load(id).await?;
        if condition(&load) || is_terminal(load.state(), false) {
            return Ok(Some(load));
        }
        bail!("{}", shown(&load))
    })
    .await?;
    ensure!(condition(&load), "load {id} should be {what}, but {}", shown(&load));
    Ok(load)
}

/// The load once it is LOADED.
pub(crate) async fn loaded(sidecar: &Sidecar<'_>, id: &str) -> Result<Load> {
    reaches(sidecar, id, "loaded", |load| load.state() == State::Loaded).await
}

/// The load once it waits for `reason` at this moment.
pub(crate) async fn waits(sidecar: &Sidecar<'_>, id: &str, reason: Reason) -> Result<Load> {
    let condition = |load: &Load| load.state() == State::Waiting && load.reason() == reason;
    reaches(sidecar, id, &format!("waiting for {reason:?}"), condition).await
}

/// The load has ended FAILED for this reason.
pub(crate) async fn failed(sidecar: &Sidecar<'_>, id: &str, reason: Reason) -> Result<Load> {
    let condition = |load: &Load| load.state() == State::Failed && load.reason() == reason;
    reaches(sidecar, id, &format!("failed with {reason:?}"), condition).await
}

/// The load once it is LOADING and at least a twentieth, at most six tenths of its copies are on the disks.
pub(crate) async fn half_way(
    sidecar: &Sidecar<'_>,
    id: &str,
    tree: &Tree<'_>,
    replicas: usize,
) -> Result<()> {
    let all = tree.copies()?.length() * replicas as u64;
    let (cached, load) = wait::until(&format!("load {id} to be half way"), PATIENCE, async || {
        let cached = tree.copies()?.bytes(replicas);
        if cached * 20 >= all {
            return Ok(Some((cached, sidecar.get_load(id).await?)));
        }
        let load = sidecar.get_load(id).await?;
        ensure!(!is_terminal(load.state(), false), "it has ended");
        bail!("{cached} of {all} bytes are cached; {}", shown(&load))
    })
    .await?;
    ensure!(
        cached * 10 <= all * 6 && load.state() == State::Loading,
        "too late to disturb: {cached} of {all} bytes are cached; {}",
        shown(&load)
    );
    Ok(())
}

/// Fails unless the command left something undone, and NATIVE made it whole: no attempt, and it says why.
pub(crate) fn assert_repaired(load: &Load) -> Result<()> {
    let told = |change: &Transition| {
        change.to() == State::Loading && change.message == "loading what distributedLoad left undone, 1 of 3"
    };
    ensure!(
        load.state() == State::Loaded
            && load.engine() == Engine::Native
            && load.engine_reason == "it loads what distributedLoad left undone"
            && load.attempt == 1
            && load.transitions.iter().any(told),
        "no native repair: {}",
        shown(load)
    );
    Ok(())
}

/// States that the load was in, with the reasons; the last 16 changes.
pub(crate) fn visited(load: &Load) -> Vec<(State, Reason)> {
    load.transitions.iter().map(|transition| (transition.to(), transition.reason())).collect()
}

/// How often the engine was started.
pub(crate) fn loadings(load: &Load) -> usize {
    visited(load).iter().filter(|(state, _)| *state == State::Loading).count()
}

/// Everything that ListFailures lists, in its order.
pub(crate) async fn failures(sidecar: &Sidecar<'_>, id: &str) -> Result<Vec<Failure>> {
    let mut all = Vec::new();
    let mut request = ListFailuresRequest { load_id: id.to_owned(), page_size: 1000, ..Default::default() };
    loop {
        let page =
            sidecar.client()?.list_failures(request.clone()).await.context("ListFailures")?.into_inner();
        all.extend(page.failures);
        if page.next_page_token.is_empty() {
            ensure!(all.len() as u64 == page.total, "{} of {} failures listed", all.len(), page.total);
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// Judges a load that has ended by what is on the disks: LOADED needs every copy; FAILED must name every file
/// that lacks one.
pub(crate) async fn assert_honest(cluster: &Cluster, sidecar: &Sidecar<'_>, load: &Load) -> Result<()> {
    let spec = load.spec.as_ref().context("a load without a wish")?;
    let replicas = spec.replicas() as usize;
    if load.state() == State::Loaded {
        let judged = cluster.oracle().assert_loaded(&spec.path, replicas).await;
        return judged.with_context(|| shown(load));
    }
    ensure!((load.state(), load.reason()) == (State::Failed, Reason::Incomplete), "{}", shown(load));
    let copies: Copies = cluster.oracle().copies(&spec.path).await?;
    let named: BTreeSet<String> = failures(sidecar, &load.id).await?.into_iter().map(|f| f.path).collect();
    let silent: Vec<_> = copies.missing(replicas).into_iter().filter(|path| !named.contains(*path)).collect();
    ensure!(!named.is_empty() && silent.is_empty(), "missing and not named: {silent:?}; {}", shown(load));
    Ok(())
}

/// A load in one line, for messages.
pub(crate) fn shown(load: &Load) -> String {
    let Load { id, message, attempt, engine_reason, .. } = load;
    let (state, reason, engine, way) = (load.state(), load.reason(), load.engine(), visited(load));
    format!(
        "{id} is {state:?} ({reason:?}: {message}) in attempt {attempt} by {engine:?} ({engine_reason}), \
         by way of {way:?}"
    )
}
