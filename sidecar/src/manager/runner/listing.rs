//! LISTING: loads metadata, counts what is there, raises limits that would evict the copies wished for.

use std::time::Duration;

use alluxio_client::{Client, Error, File};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::time::Instant;

use super::{Runner, Stop, live_ids};
use crate::{gates::Shut, job::LoadMetadata, survey::Survey};

/// Counts of a running listing are published this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Calls in flight that raise replication limits of single files.
const RAISING: usize = 32;

/// Calls in flight that ask what is in single folders.
const ASKING: usize = 32;

/// Levels of folders that Alluxio has to be asked for one by one.
const DEEPEST: usize = 32;

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

    async fn list_with(&self, client: &Client) -> Result<Survey, Error> {
        let metadata = match self.job().spec.load_metadata {
            LoadMetadata::Once => alluxio_client::LoadMetadata::Once,
            LoadMetadata::Never => alluxio_client::LoadMetadata::Never,
            LoadMetadata::Always => alluxio_client::LoadMetadata::Always,
        };
        let (mut survey, mut bare) = self.list_once(client, metadata).await?;
        for _ in 0..DEEPEST {
            if metadata == alluxio_client::LoadMetadata::Never || !uncover(client, bare, metadata).await? {
                break;
            }
            (survey, bare) = self.list_once(client, alluxio_client::LoadMetadata::Never).await?;
        }
        Ok(survey)
    }

    async fn list_once(
        &self,
        client: &Client,
        metadata: alluxio_client::LoadMetadata,
    ) -> Result<(Survey, Vec<String>), Error> {
        let spec = &self.job().spec;
        let replicas = spec.replicas.get();
        let live = live_ids(&client.workers().await?);
        let mut survey = Survey::new(replicas, live);
        let mut bare = Bare::default();
        let mut listing = client.list(spec.path.as_str(), metadata).await?;
        let mut published = Instant::now();
        let mut raising = FuturesUnordered::new();
        while let Some(file) = listing.next().await? {
            bare.add(&file);
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
        Ok((survey, bare.folders()))
    }
}

/// Asks for each of these folders by itself. True: at least one is not empty, and Alluxio knows it now.
///
/// A folder with a `\` in one of its names ends Alluxio's recursion: the folders in it are listed as empty,
/// until somebody lists them (seen with 2.9.3).
async fn uncover(
    client: &Client,
    folders: Vec<String>,
    metadata: alluxio_client::LoadMetadata,
) -> Result<bool, Error> {
    let asked = stream::iter(folders).map(|folder| async move {
        let first = async { client.list(&folder, metadata).await?.next().await };
        match first.await {
            Ok(first) => Ok(first.is_some()),
            // Removed meanwhile.
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    });
    asked.buffer_unordered(ASKING).try_fold(false, async |any, found| Ok(any || found)).await
}

/// Finds the folders in which a recursive listing names nothing. Alluxio tells a folder right before what is
/// in it, or right after.
#[derive(Debug, Default)]
struct Bare {
    last: String,
    /// `last` is a folder, and what was named before it was not in it.
    open: bool,
    folders: Vec<String>,
}

impl Bare {
    fn add(&mut self, file: &File) {
        if self.open && !is_in(&file.path, &self.last) {
            self.folders.push(self.last.clone());
        }
        self.open = file.folder && !is_in(&self.last, &file.path);
        self.last.clone_from(&file.path);
    }

    fn folders(mut self) -> Vec<String> {
        if self.open {
            self.folders.push(self.last);
        }
        self.folders
    }
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
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
    fn bare_folders_are_found_in_either_order() {
        let bare = |paths: &[&str]| {
            let mut bare = Bare::default();
            for path in paths {
                let folder = path.ends_with('/');
                bare.add(&File { path: path.trim_end_matches('/').into(), folder, ..File::default() });
            }
            bare.folders()
        };
        assert_eq!(bare(&["/a/", "/a/f", "/b/", "/b/c/", "/d", "/e/"]), ["/b/c", "/e"]);
        assert_eq!(bare(&["/a/f", "/a/", "/b/c/", "/b/", "/d", "/e/"]), ["/b/c", "/e"]);
        assert_eq!(bare(&["/a/", "/ab"]), ["/a"]);
        assert_eq!(bare(&["/f"]), [""; 0]);
    }

    #[test]
    fn only_finite_limits_below_the_wish_are_raised() {
        let file = |replication_max| File { replication_max, ..File::default() };
        assert!(limits_copies(&file(1), 2));
        assert!(!limits_copies(&file(-1), 2));
        assert!(!limits_copies(&file(2), 2));
    }
}
