//! Files and folders of Alluxio's namespace, and where their blocks are cached.

use crate::{
    Error,
    wire::{BlockInfo, file as wire},
};

/// When the master looks into the under storage (UFS) before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMetadata {
    /// Only what the master knows already.
    Never,
    /// A folder is listed in the UFS if it never was before; what changes there later is not noticed.
    Once,
    /// The UFS is listed again: new, changed and deleted files are noticed, and a changed file loses its cached blocks.
    Always,
}

/// A file or folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Absolute Alluxio path.
    pub path: String,
    /// Bytes; 0 for a folder.
    pub length: u64,
    /// Bytes of every block but the last.
    pub block_size: u64,
    /// A folder, not a file.
    pub folder: bool,
    /// False while somebody still writes it.
    pub completed: bool,
    /// It exists in the UFS too.
    pub persisted: bool,
    /// Mount it belongs to.
    pub mount_id: i64,
    /// It is the root of a mount.
    pub mount_point: bool,
    /// Where the UFS has it.
    pub ufs_path: String,
    /// Milliseconds since the epoch at which the master made the entry.
    pub creation_time_ms: i64,
    /// Copies that Alluxio itself keeps up; 0 by default.
    pub replication_min: i32,
    /// Copies above which Alluxio evicts; -1, the default of files, is unlimited. Folders say 0, which means nothing.
    pub replication_max: i32,
    /// Blocks in order; empty for a folder and an empty file. That they add up to `length` is for the caller to check.
    pub blocks: Vec<Block>,
}

/// A block of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Alluxio's block id.
    pub id: i64,
    /// Bytes.
    pub length: u64,
    /// Ids ([`crate::Worker::id`]) of the distinct workers that hold it, as of their last heartbeats, in order. A worker
    /// that died is still among them for minutes.
    pub workers: Vec<i64>,
}

/// Entries live until somebody deletes them.
const NO_TTL: i64 = -1;

impl From<LoadMetadata> for wire::LoadMetadataPType {
    fn from(metadata: LoadMetadata) -> Self {
        match metadata {
            LoadMetadata::Never => wire::LoadMetadataPType::Never,
            LoadMetadata::Once => wire::LoadMetadataPType::Once,
            LoadMetadata::Always => wire::LoadMetadataPType::Always,
        }
    }
}

impl From<LoadMetadata> for wire::FileSystemMasterCommonPOptions {
    /// Every call that may load metadata must send these. Without an explicit time to live the master gives the files
    /// that it finds one of 0 ms and the action DELETE, and its next TTL check deletes them in Alluxio **and in the UFS**
    /// (seen with 2.9.3). FREE is there so that even a time to live could cost no more than a cached copy.
    fn from(metadata: LoadMetadata) -> Self {
        let sync_interval_ms = match metadata {
            LoadMetadata::Never | LoadMetadata::Once => -1,
            LoadMetadata::Always => 0,
        };
        wire::FileSystemMasterCommonPOptions {
            sync_interval_ms: Some(sync_interval_ms),
            ttl: Some(NO_TTL),
            ttl_action: Some(wire::TtlAction::Free.into()),
        }
    }
}

impl TryFrom<wire::FileInfo> for File {
    type Error = Error;

    /// Strict where "every block is cached" depends on it: path, length, block ids and block lengths must be there and
    /// not negative. The rest falls back to the cautious value.
    fn try_from(info: wire::FileInfo) -> Result<File, Error> {
        let path = info.path.ok_or_else(|| missing("a file", "a path"))?;
        let folder = info.folder.unwrap_or_default();
        // A folder's length is the number of its entries: no bytes.
        let length = if folder { 0 } else { bytes(&path, "length", info.length)? };
        let blocks = info
            .file_block_infos
            .into_iter()
            .map(|info| Block::from_wire(&path, info.block_info.unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        Ok(File {
            length,
            block_size: bytes(&path, "block size", Some(info.block_size_bytes.unwrap_or_default()))?,
            folder,
            completed: info.completed.unwrap_or_default(),
            persisted: info.persisted.unwrap_or_default(),
            mount_id: info.mount_id.unwrap_or_default(),
            mount_point: info.mount_point.unwrap_or_default(),
            ufs_path: info.ufs_path.unwrap_or_default(),
            creation_time_ms: info.creation_time_ms.unwrap_or_default(),
            replication_min: info.replication_min.unwrap_or_default(),
            replication_max: info.replication_max.unwrap_or(-1),
            blocks,
            path,
        })
    }
}

impl Block {
    fn from_wire(path: &str, info: BlockInfo) -> Result<Block, Error> {
        let mut workers: Vec<i64> =
            info.locations.into_iter().filter_map(|location| location.worker_id).collect();
        workers.sort_unstable();
        workers.dedup();
        Ok(Block {
            id: info.block_id.ok_or_else(|| missing(path, "a block id"))?,
            length: bytes(path, "block length", info.length)?,
            workers,
        })
    }
}

/// A number of bytes; missing or negative it is a protocol error, since no guess is safe.
fn bytes(path: &str, name: &str, value: Option<i64>) -> Result<u64, Error> {
    let value = value.ok_or_else(|| missing(path, name))?;
    u64::try_from(value).map_err(|_| Error::Protocol { message: format!("{name} {value} of {path}") })
}

fn missing(whose: &str, name: &str) -> Error {
    Error::Protocol { message: format!("{whose} came without {name}") }
}

#[cfg(test)]
mod tests;
