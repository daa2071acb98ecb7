//! LISTING: loads metadata, counts what is there, raises limits that would evict the copies wished for.

use std::time::Duration;

use alluxio_client::{Client, Error, File};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{Runner, Stop, live_ids};
use crate::{gates::Shut, job::LoadMetadata, survey::Survey};

/// Counts of a running listing are published this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Calls in flight that raise replication limits of single files.
const RAISING: usize = 32;

impl Runner {
    /// LISTING: loads metadata, counts, and raises limits that would evict the copies wished for.
    pub(super) async fn list(&self) -> Result<Result<Survey, Shut>, Stop> {
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Err(shut)),
        };
        match self.unless_stopped(self.list_with(client)).await? {
            Ok(survey) => {
                self.live.count(survey.count(true)).await;
                Ok(Ok(survey))
            }
            Err(error) => self.or_shut(error.into()).map(Err),
        }
    }

    pub(super) async fn list_with(&self, client: &Client) -> Result<Survey, Error> {
        let spec = &self.job().spec;
        let replicas = spec.replicas.get();
        let live = live_ids(&client.workers().await?);
        let metadata = match spec.load_metadata {
            LoadMetadata::Once => alluxio_client::LoadMetadata::Once,
            LoadMetadata::Never => alluxio_client::LoadMetadata::Never,
            LoadMetadata::Always => alluxio_client::LoadMetadata::Always,
        };
        let mut survey = Survey::new(replicas, live);
        let mut listing = client.list(spec.path.as_str(), metadata).await?;
        let mut published = Instant::now();
        let mut raising = FuturesUnordered::new();
        while let Some(file) = listing.next().await? {
            if survey.add(&file).is_some() && limits_copies(&file, replicas) {
                if raising.len() == RAISING {
                    raising.next().await;
                }
                raising.push(raise_limit(client, file.path.clone(), replicas));
            }
            if published.elapsed() >= PUBLISH_EVERY {
                published = Instant::now();
                self.live.advance(survey.count(false)).await;
            }
        }
        while raising.next().await.is_some() {}
        Ok(survey)
    }
}

/// Alluxio evicts copies above a finite limit; -1 is unlimited and never touched.
fn limits_copies(file: &File, replicas: u32) -> bool {
    u32::try_from(file.replication_max).is_ok_and(|max| max < replicas)
}

async fn raise_limit(client: &Client, path: String, replicas: u32) {
    let max = i32::try_from(replicas).unwrap_or(i32::MAX);
    if let Err(error) = client.set_replication_max(&path, max).await {
        tracing::warn!(path, %error, "the file's replication limit could not be raised; copies may be missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finite_limits_below_the_wish_are_raised() {
        let file = |replication_max| File { replication_max, ..File::default() };
        assert!(limits_copies(&file(1), 2));
        assert!(!limits_copies(&file(-1), 2));
        assert!(!limits_copies(&file(2), 2));
    }
}
