//! What is in the cache, by a second route that shares no code with the sidecar: ids of files from the
//! master's web pages, and block files on the disks of the workers.
//!
//! A file id is the id of its first block with all of the low 24 bits set; its blocks count up from 0 in
//! these bits. A worker names the file of a block after the block's id.
//!
//! Listing by this route makes Alluxio load metadata that it has not seen, as `fs ls` does.

mod disks;
mod shown;
mod verdict;

pub use disks::Disks;
pub use shown::Listing;
pub use verdict::Verdict;

use crate::cluster::{Cluster, Role};
use crate::http;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use shown::size_as_shown;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;

const BLOCK_BITS: i64 = (1 << 24) - 1;

#[derive(Debug, Clone, Copy)]
pub struct Oracle<'a> {
    cluster: &'a Cluster,
}

/// The files below a path as Alluxio lists them. Ids stay the same until a file is removed, so that one
/// listing serves many looks at the disks.
#[derive(Debug)]
pub struct Tree<'a> {
    cluster: &'a Cluster,
    files: Vec<ListedFile>,
}

#[derive(Debug)]
struct ListedFile {
    path: String,
    first_block: i64,
    length: u64,
    in_alluxio_percentage: u64,
}

/// Which workers hold which blocks. Only workers that run count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Files with data, by path.
    pub files: BTreeMap<String, Vec<Block>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub id: i64,
    pub offset: u64,
    pub length: u64,
    /// Numbers of the workers that hold it whole.
    pub workers: BTreeSet<usize>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Lists the files below a directory, or the one file.
    pub async fn tree(self, path: &str) -> Result<Tree<'a>> {
        let mut files = Vec::new();
        let mut exact = None;
        for (path, entry) in self.list(path).await? {
            let id = entry["id"].as_i64().context("a file has no id")?;
            let shown = entry["size"].as_str().context("a file has no size")?;
            // The page rounds. Alluxio keeps the length that it saw first, so that a file changed since
            // in the under file system needs the slow way.
            let ufs = fs::metadata(self.cluster.ufs_path(&path)).map(|file| file.len());
            let length = match ufs {
                Ok(length) if size_as_shown(length) == shown => length,
                _ => {
                    if exact.is_none() {
                        exact = Some(self.fs_ls("/").await?);
                    }
                    let listed = exact.as_ref().and_then(|files| files.get(&path));
                    listed.with_context(|| format!("fs ls does not show {path}"))?.length
                }
            };
            let in_alluxio_percentage = entry["inAlluxioPercentage"].as_u64().unwrap_or(0);
            files.push(ListedFile { path, first_block: id & !BLOCK_BITS, length, in_alluxio_percentage });
        }
        Ok(Tree { cluster: self.cluster, files })
    }

    /// [`Oracle::tree`] and [`Tree::copies`] in one.
    pub async fn copies(self, path: &str) -> Result<Copies> {
        self.tree(path).await?.copies()
    }

    /// Fails unless every block below `path` is on at least `replicas` workers, and is what the under file
    /// system holds.
    pub async fn assert_loaded(self, path: &str, replicas: usize) -> Result<()> {
        let tree = self.tree(path).await?;
        let copies = tree.copies()?;
        let missing = copies.missing(replicas);
        if let Some(first) = missing.first() {
            let total = copies.files.len();
            bail!("{} of {total} files below {path} lack copies, such as {first}", missing.len());
        }
        tree.compare_contents(&copies)
    }

    /// `alluxio fs ls -R`: what users see. Costs a JVM.
    pub async fn fs_ls(self, path: &str) -> Result<BTreeMap<String, Listing>> {
        let output = self.cluster.alluxio(&["fs", "ls", "-R", path]).await?.success()?;
        Ok(output.lines().filter_map(Listing::parse).collect())
    }

    /// Bytes on the disks of all running workers, whatever they belong to.
    pub fn bytes_on_disk(self) -> Result<u64> {
        Ok(Disks::of(self.cluster, &running(self.cluster))?.bytes())
    }

    /// What is on the disks of all workers at this moment, also of those that do not run.
    pub fn disks(self) -> Result<Disks> {
        Disks::of(self.cluster, &(1..=self.cluster.options().workers).collect())
    }

    async fn list(self, path: &str) -> Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        // A file is found in its parent, since the page of a file itself would read it, hence cache it; but
        // a new directory may be missing there, because Alluxio lists each directory once.
        if !self.cluster.ufs_path(path).is_dir()
            && let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/')
        {
            let parent = if parent.is_empty() { "/" } else { parent };
            let own = self.browse(parent).await?.into_iter().find(|(entry, _)| entry == path);
            let (path, entry) = own.with_context(|| format!("Alluxio does not list {path}"))?;
            if entry["isDirectory"] != true {
                return Ok(vec![(path, entry)]);
            }
        }
        let mut directories = vec![path.to_owned()];
        while let Some(directory) = directories.pop() {
            for (path, entry) in self.browse(&directory).await? {
                if entry["isDirectory"] == true {
                    directories.push(path);
                } else {
                    found.push((path, entry));
                }
            }
        }
        Ok(found)
    }

    async fn browse(self, directory: &str) -> Result<Vec<(String, Value)>> {
        // The page decodes its parameter twice.
        let parameter = http::encode_path(&http::encode_path(directory));
        let page = format!("/api/v1/master/webui_browse?path={parameter}&offset=0&limit=1000000");
        let page = http::get_json(&self.cluster.web_address(), &page).await?;
        let Some(entries) = page["fileInfos"].as_array() else {
            bail!("Alluxio does not list {directory}: {page}");
        };
        let path = |entry: &Value| entry["absolutePath"].as_str().unwrap_or_default().to_owned();
        Ok(entries.iter().map(|entry| (path(entry), entry.clone())).collect())
    }
}

impl Tree<'_> {
    /// Paths of all files, also of those without data.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }

    /// What Alluxio itself said of each file when the tree was listed: 100 proves one copy at most.
    pub fn percentages(&self) -> BTreeMap<&str, u64> {
        self.files.iter().map(|file| (file.path.as_str(), file.in_alluxio_percentage)).collect()
    }

    /// Looks at the disks of all running workers; no request to Alluxio.
    pub fn copies(&self) -> Result<Copies> {
        let running = running(self.cluster);
        self.copies_in(&Disks::of(self.cluster, &running)?, &running)
    }

    /// What these workers held when the disks were looked at.
    pub fn copies_in(&self, disks: &Disks, workers: &BTreeSet<usize>) -> Result<Copies> {
        let block_size = self.cluster.options().block_size;
        let mut files = BTreeMap::new();
        for file in self.files.iter().filter(|file| file.length > 0) {
            let mut blocks = Vec::new();
            for (index, offset) in (0..).zip((0..file.length).step_by(usize::try_from(block_size)?)) {
                let id = file.first_block + index;
                let length = block_size.min(file.length - offset);
                let holders = disks.holders(id, length).filter(|worker| workers.contains(worker));
                blocks.push(Block { id, offset, length, workers: holders.collect() });
            }
            files.insert(file.path.clone(), blocks);
        }
        Ok(Copies { files })
    }

    /// Fails if a cached block differs from the under file system.
    pub fn compare_contents(&self, copies: &Copies) -> Result<()> {
        for (path, blocks) in &copies.files {
            let ufs = File::open(self.cluster.ufs_path(path)).with_context(|| format!("open {path}"))?;
            for block in blocks {
                let mut expected = vec![0; usize::try_from(block.length)?];
                ufs.read_exact_at(&mut expected, block.offset).with_context(|| format!("read {path}"))?;
                for worker in &block.workers {
                    let directory = self.cluster.worker_directory(Role::Worker(*worker));
                    let mut cached = Vec::new();
                    File::open(directory.join(block.id.to_string()))?.read_to_end(&mut cached)?;
                    if cached != expected {
                        bail!("block {} of {path} on worker {worker} is not what was loaded", block.id);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Copies {
    /// Files of which a block is on fewer than `replicas` workers.
    pub fn missing(&self, replicas: usize) -> Vec<&str> {
        let lacks = |blocks: &[Block]| blocks.iter().any(|block| block.workers.len() < replicas);
        self.files.iter().filter(|(_, blocks)| lacks(blocks)).map(|(path, _)| path.as_str()).collect()
    }

    /// Copies of the block that has the fewest; 0 without data.
    pub fn fewest(&self) -> usize {
        self.blocks().map(|block| block.workers.len()).min().unwrap_or(0)
    }

    /// Copies of the block that has the most.
    pub fn most(&self) -> usize {
        self.blocks().map(|block| block.workers.len()).max().unwrap_or(0)
    }

    /// Bytes cached, at most `replicas` copies of a block: comparable with `Progress.bytes_cached`.
    pub fn bytes(&self, replicas: usize) -> u64 {
        self.blocks().map(|block| block.length * block.workers.len().min(replicas) as u64).sum()
    }

    /// Bytes of the files, one copy.
    pub fn length(&self) -> u64 {
        self.blocks().map(|block| block.length).sum()
    }

    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.files.values().flatten()
    }
}

fn running(cluster: &Cluster) -> BTreeSet<usize> {
    let number = |role| if let Role::Worker(worker) = role { Some(worker) } else { None };
    cluster.pids().into_keys().filter_map(number).collect()
}
