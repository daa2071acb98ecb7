//! Where the time of a NATIVE load goes: how long it was in which state, and who had the cores meanwhile.

use super::side::Watched;
use crate::machine::cpu_of;
use anyhow::Result;
use preload_tests::{Cluster, Role, Sidecar};
use std::time::Duration;

/// All in seconds.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    /// Until it was LOADING: accepted, stored, gates looked at, listed and counted.
    pub(super) waiting: f64,
    /// Listing and loading, side by side.
    pub(super) loading: f64,
    pub(super) verifying: f64,
    pub(super) cpu: Cpu,
}

/// User and system time, in steps of 10 ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) workers: f64,
    pub(super) master: f64,
    pub(super) sidecar: f64,
}

/// A load that is under way.
#[derive(Debug)]
pub(super) struct Profiled {
    sidecar: u32,
    before: Cpu,
}

impl Profiled {
    pub(super) fn begin(cluster: &Cluster, sidecar: &Sidecar<'_>) -> Result<Self> {
        let sidecar = sidecar.pid()?;
        Ok(Self { sidecar, before: Cpu::now(cluster, sidecar)? })
    }

    pub(super) fn end(self, cluster: &Cluster, watched: &Watched) -> Result<Profile> {
        let now = Cpu::now(cluster, self.sidecar)?;
        let (end, before) = (watched.seconds, self.before);
        let verifying = watched.verifying.unwrap_or(end);
        let loading = watched.loading.unwrap_or(verifying);
        Ok(Profile {
            waiting: loading,
            loading: verifying - loading,
            verifying: end - verifying,
            cpu: Cpu {
                workers: now.workers - before.workers,
                master: now.master - before.master,
                sidecar: now.sidecar - before.sidecar,
            },
        })
    }
}

impl Cpu {
    fn now(cluster: &Cluster, sidecar: u32) -> Result<Self> {
        let of = |wanted: fn(&Role) -> bool| -> Result<f64> {
            let pids = cluster.pids().into_iter().filter(|(role, _)| wanted(role));
            Ok(pids.map(|(_, pid)| cpu_of(pid)).sum::<Result<Duration>>()?.as_secs_f64())
        };
        Ok(Self {
            workers: of(|role| matches!(role, Role::Worker(_)))?,
            master: of(|role| matches!(role, Role::Master))?,
            sidecar: cpu_of(sidecar)?.as_secs_f64(),
        })
    }
}
