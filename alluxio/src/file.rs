//! Files and folders of Alluxio's namespace, and where their blocks are cached.

/// When the master looks into the under storage (UFS) before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMetadata {
    /// Only what the master knows already.
    Never,
    /// A folder is listed in the UFS if it never was before.
    Once,
    /// The UFS is listed again: new, changed and deleted files are noticed.
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
    /// Copies that Alluxio itself keeps up.
    pub replication_min: i32,
    /// Copies above which Alluxio evicts; -1 is unlimited.
    pub replication_max: i32,
    /// Blocks in order; empty for a folder and an empty file.
    pub blocks: Vec<Block>,
}

/// A block of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Alluxio's block id.
    pub id: i64,
    /// Bytes.
    pub length: u64,
    /// Ids ([`crate::Worker::id`]) of the distinct workers that hold it.
    pub workers: Vec<i64>,
}
