//! Housekeeping of finished loads: withdraws LOADED when its cluster is gone, forgets what is old.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Manager, ManagerError};
use crate::job::{Event, Reason};

/// How soon a changed cluster is noticed. One small call to the master each, and only while anything is LOADED.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Retention is counted in days.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Runs until the manager stops, whatever panics.
pub(super) async fn keep(manager: Manager) {
    while manager.0.tasks.spawn(run(manager.clone())).await.is_err() {
        tokio::select! {
            () = manager.stopping().cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn run(manager: Manager) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pruned: Option<Instant> = None;
    let mut scrubbed = false;
    let mut strays = HashSet::new();
    let stopping = manager.stopping().clone();
    let work = async {
        loop {
            ticks.tick().await;
            withdraw_lost(&manager).await;
            if let Err(error) = manager.adopt(&mut strays).await {
                tracing::warn!(%error, "the store cannot be read");
            }
            manager.0.followed.with(|followed| followed.retain(|_, sender| sender.receiver_count() > 0));
            if pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
                pruned = Some(Instant::now());
                prune(&manager).await;
            }
            if !scrubbed {
                scrubbed = true;
                if let Err(error) = manager.0.store.scrub().await {
                    tracing::warn!(%error, "the store could not be checked for damage");
                }
            }
        }
    };
    tokio::select! {
        () = stopping.cancelled() => {}
        () = work => {}
    }
}

/// LOADED speaks of one cluster; a new journal means that cache and metadata are gone.
async fn withdraw_lost(manager: &Manager) {
    let inner = &manager.0;
    if !matches!(inner.store.any_loaded().await, Ok(true)) {
        return;
    }
    let Ok(client) = inner.alluxio.client().await else { return };
    // A silent master says nothing about its identity.
    let Ok(cluster) = client.cluster_id().await else { return };
    let lost = match inner.store.loaded_elsewhere(&cluster).await {
        Ok(lost) => lost,
        Err(error) => return tracing::warn!(%error, "loads of a lost cluster could not be withdrawn"),
    };
    for job in lost {
        let message = format!("the alluxio cluster is another one now: {cluster}, not {}", job.cluster);
        let event = Event::Withdrawn { reason: Reason::ClusterChanged, message };
        match manager.change_loaded(&job.id, job.uid, event).await {
            // Somebody else was first.
            Ok(_) | Err(ManagerError::NotFound { .. } | ManagerError::NotLoaded { .. }) => {}
            Err(error) => {
                tracing::warn!(id = %job.id, %error, "a lost load could not be withdrawn; trying again");
            }
        }
    }
}

async fn prune(manager: &Manager) {
    let limits = manager.0.limits;
    let Ok(before) = manager.now().checked_sub(limits.retention) else { return };
    let checker = manager.clone();
    let spared = move |uid| checker.0.checks.is_checked(uid);
    match manager.0.store.prune(before, limits.retained, spared).await {
        Ok(forgotten) if forgotten.is_empty() => {}
        Ok(forgotten) => {
            manager.0.followed.with(|followed| followed.retain(|id, _| !forgotten.contains(id)));
            tracing::info!(loads = forgotten.len(), "forgot old loads");
        }
        Err(error) => tracing::warn!(%error, "old loads could not be forgotten"),
    }
}
