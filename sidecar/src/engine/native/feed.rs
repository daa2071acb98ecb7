//! Lists what is missing below a path, and hands it over.
//!
//! The listing is read as fast as it comes, since the master holds in memory what is not read. When the backlog is
//! full the listing is given up, and begun anew where it stopped once the backlog is empty. Should the folders change
//! in between, a file may be passed over: verification finds it, and the next attempt loads it.

use std::collections::{HashMap, HashSet};

use alluxio_client::{Client, Error, File, LoadMetadata};
use tokio::sync::mpsc;

use super::{
    Wish,
    backlog::{Backlog, MissingBlock, MissingFile},
};
use crate::engine::MAX_CAUSES;

/// About 300,000 files.
const BACKLOG_BYTES: usize = 8 << 20;

/// Sends every file that lacks copies; gives those that cannot be loaded, and why. Ends early when nobody listens.
pub(super) async fn run(
    client: &Client,
    wish: &Wish,
    files: mpsc::Sender<MissingFile>,
) -> Result<HashMap<String, String>, Error> {
    let live: HashSet<i64> = wish.workers.iter().map(|worker| worker.id).collect();
    let mut backlog = Backlog::default();
    let mut refused = HashMap::new();
    let mut seen = 0_u64;
    loop {
        let mut listing = client.list(wish.path.as_str(), LoadMetadata::Never).await?;
        let mut number = 0;
        let ended = loop {
            let Some(file) = listing.next().await? else { break true };
            number += 1;
            if number <= seen {
                continue;
            }
            match missing(file, wish.replicas, &live) {
                Ok(None) => {}
                Ok(Some(file)) => backlog.push(file),
                Err((path, why)) if refused.len() < MAX_CAUSES => {
                    refused.insert(path, why.to_owned());
                }
                Err(_) => {}
            }
            while !backlog.is_empty() {
                let Ok(slot) = files.try_reserve() else { break };
                let Some(file) = backlog.pop() else { break };
                slot.send(file);
            }
            if backlog.bytes() > BACKLOG_BYTES {
                break false;
            }
        };
        seen = number.max(seen);
        drop(listing);
        while let Some(file) = backlog.pop() {
            if files.send(file).await.is_err() {
                return Ok(refused);
            }
        }
        if ended {
            return Ok(refused);
        }
    }
}

/// What of `file` lacks copies; or why it cannot be loaded.
fn missing(
    file: File,
    replicas: u32,
    live: &HashSet<i64>,
) -> Result<Option<MissingFile>, (String, &'static str)> {
    if file.folder || file.length == 0 {
        return Ok(None);
    }
    // One that somebody still writes has no final length; verification says so.
    if !file.completed {
        return Ok(None);
    }
    let wished = usize::try_from(replicas).unwrap_or(usize::MAX);
    let lacks = |holders: &Vec<i64>| holders.len() < wished;
    let mut blocks = Vec::new();
    for (block, index) in file.blocks.iter().zip(0_u64..) {
        let holders: Vec<i64> = block.workers.iter().copied().filter(|id| live.contains(id)).collect();
        if block.length > 0 && lacks(&holders) {
            let offset = index.saturating_mul(file.block_size);
            blocks.push(MissingBlock { id: block.id, length: block.length, offset, holders });
        }
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    if !file.persisted {
        return Err((
            file.path,
            "it is not in the under file system yet, so no worker can read it from there",
        ));
    }
    Ok(Some(MissingFile { path: file.path, ufs_path: file.ufs_path, mount_id: file.mount_id, blocks }))
}

#[cfg(test)]
mod tests {
    use alluxio_client::Block;

    use super::*;

    fn file(workers: &[&[i64]]) -> File {
        let blocks =
            workers.iter().zip(1..).map(|(workers, id)| Block { id, length: 10, workers: workers.to_vec() });
        File {
            path: "/f".into(),
            ufs_path: "/ufs/f".into(),
            length: 10 * workers.len() as u64,
            block_size: 10,
            completed: true,
            persisted: true,
            blocks: blocks.collect(),
            ..File::default()
        }
    }

    #[test]
    fn only_blocks_that_lack_copies_on_live_workers_are_missing() {
        let live = HashSet::from([1, 2]);
        let found = missing(file(&[&[1, 2], &[1], &[9], &[]]), 2, &live).unwrap().unwrap();
        let blocks: Vec<_> = found.blocks.iter().map(|b| (b.id, b.offset, b.holders.as_slice())).collect();
        assert_eq!(blocks, [(2, 10, [1].as_slice()), (3, 20, &[]), (4, 30, &[])]);
        assert_eq!(missing(file(&[&[1], &[2]]), 1, &live), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_named_or_left_to_verification() {
        let live = HashSet::new();
        let only_in_the_cache = File { persisted: false, ..file(&[&[]]) };
        assert_eq!(missing(only_in_the_cache, 1, &live).unwrap_err().0, "/f");
        assert_eq!(missing(File { completed: false, ..file(&[&[]]) }, 1, &live), Ok(None));
        assert_eq!(missing(File { folder: true, ..file(&[&[]]) }, 1, &live), Ok(None));
        assert_eq!(missing(file(&[]), 1, &live), Ok(None));
    }
}
