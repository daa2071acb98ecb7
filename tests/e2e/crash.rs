//! kill -9, SIGTERM and restarts: nothing acknowledged is lost, the load goes on by itself, nothing is left.

mod command;
mod each;
mod metadata;
mod random;
mod resumed;
mod terminated;

use crate::outcome::{assert_honest, wish};
use crate::support::{
    assert_attempts, assert_in_order, assert_nothing_works_on, cancel, live_jobs, watch_until,
};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Load, StartLoadRequest};
use anyhow::{Result, ensure};
use preload_tests::{Cluster, Data, Sidecar, wait};
use std::collections::BTreeSet;
use std::fs;

const SMALL: u64 = 16 * 1024;
/// A way through the states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    pub(crate) engine: Engine,
    pub(crate) files: usize,
    pub(crate) replicas: u32,
    /// One of the files goes from the under file system before the load begins.
    pub(crate) gone: bool,
    /// All of it is cached before the load begins.
    pub(crate) cached: bool,
    /// It is cancelled once it is LOADING.
    pub(crate) cancelled: bool,
    pub(crate) end: State,
}

/// By the command.
pub(crate) const STRAIGHT: Course = Course {
    engine: Engine::DistributedLoad,
    files: 8,
    replicas: 1,
    gone: false,
    cached: false,
    cancelled: false,
    end: State::Loaded,
};

/// The same by the native engine.
const NATIVE: Course = Course { engine: Engine::Native, files: 100, ..STRAIGHT };

/// Fresh data, and a sidecar of its own that loads them.
pub(crate) async fn loading<'a>(
    cluster: &'a Cluster,
    name: &str,
    course: Course,
) -> Result<(Data, Sidecar<'a>, Load)> {
    let data = course.data(cluster, name).await?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    if course.cached {
        sidecar.start_load(course.request("before", &data)?).await?;
        sidecar.in_state("before", State::Loaded).await?;
    }
    let started = sidecar.start_load(course.request("a", &data)?).await?;
    Ok((data, sidecar, started))
}

impl Course {
    async fn data(self, cluster: &Cluster, name: &str) -> Result<Data> {
        let data = cluster.data(name)?;
        data.files(self.files, SMALL)?;
        if self.gone {
            // Alluxio knows it, and cannot load it.
            cluster.oracle().tree(data.path()).await?;
            fs::remove_file(data.ufs().join("f00000"))?;
        }
        Ok(data)
    }

    fn request(self, id: &str, data: &Data) -> Result<StartLoadRequest> {
        wish(id, data.path(), self.replicas, |spec| {
            spec.set_engine(self.engine);
            spec.max_attempts = if self.gone { 1 } else { 3 };
        })
    }

    async fn cancel(self, sidecar: &Sidecar<'_>) -> Result<()> {
        if self.cancelled {
            watch_until(sidecar, "a", |load| load.state() >= State::Loading).await?;
            cancel(sidecar, "a").await?;
        }
        Ok(())
    }

    /// It ends as if nothing had happened: in order, without another attempt, and leaves nothing.
    pub(crate) async fn ends_well(
        self,
        cluster: &Cluster,
        sidecar: &Sidecar<'_>,
        path: &str,
    ) -> Result<Load> {
        self.cancel(sidecar).await?;
        let ended = sidecar.in_state("a", self.end).await?;
        assert_in_order(&ended)?;
        assert_attempts(&ended)?;
        if !self.cancelled {
            assert_honest(cluster, sidecar, &ended).await?;
        }
        assert_nothing_works_on(cluster, path).await?;
        ensure!(sidecar.descendants()?.is_empty(), "children are left: {:?}", sidecar.descendants()?);
        Ok(ended)
    }
}

/// The load is LOADING, and its command has jobs in the job service.
async fn has_jobs(cluster: &Cluster, path: &str) -> Result<()> {
    let jobs = async || Ok((!live_jobs(cluster, path).await?.is_empty()).then_some(()));
    wait::until("jobs of the command", wait::LIMIT, jobs).await
}

/// `now` is `before`, some changes later: nothing that was told is taken back.
pub(crate) fn assert_continues(before: &Load, now: &Load) -> Result<()> {
    ensure!(now.uid == before.uid, "another load: {before:?}, then {now:?}");
    ensure!(now.sequence >= before.sequence, "the sequence went back: {before:?}, then {now:?}");
    // At most 16 are kept.
    let seen = |load: &Load| load.transitions.iter().map(|t| t.sequence).collect::<BTreeSet<_>>();
    let (first, known) = (now.transitions.first().map_or(0, |t| t.sequence), seen(now));
    let lost: Vec<_> = seen(before).into_iter().filter(|s| *s >= first && !known.contains(s)).collect();
    ensure!(lost.is_empty(), "changes {lost:?} were taken back: {before:?}, then {now:?}");
    Ok(())
}
