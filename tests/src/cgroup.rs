//! Control groups at the top of every hierarchy of this system, which is one with cgroup v2.
//!
//! Invariants: whoever makes one holds a lock on it until it is removed, so that a group that can be locked is
//! the left-over of a run that was killed.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// What the names of our groups start with.
pub const PREFIX: &str = "preload-tests-";
/// A group is empty a moment after its processes are gone.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);
/// A cpuset starts without any, and then nothing can run in it.
const COPIED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A group of ours: a directory of that name in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    _lock: File,
}

impl Cgroup {
    /// Makes it; `name` starts with [`PREFIX`].
    pub fn claim(name: &str) -> Result<Self> {
        let hierarchies = hierarchies();
        let Some((first, others)) = hierarchies.split_first() else {
            bail!("{ROOT} has no hierarchy: mount the control groups");
        };
        let lock = claim_first(&first.join(name)).with_context(|| format!("make the group {name}"))?;
        for hierarchy in others {
            let group = hierarchy.join(name);
            fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
            for file in COPIED {
                if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                    fs::write(group.join(file), value).with_context(|| format!("write {file} of {name}"))?;
                }
            }
        }
        Ok(Self { name: name.to_owned(), _lock: lock })
    }

    /// Removes it, and the groups below, once no process is left in them.
    pub fn remove(self) -> Result<()> {
        remove(&self.name, REMOVAL_LIMIT).with_context(|| format!("remove the group {}", self.name))
    }
}

/// The first group is the one that is locked.
fn claim_first(group: &Path) -> io::Result<File> {
    loop {
        fs::create_dir_all(group)?;
        let lock = match File::open(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        lock.lock()?;
        // Somebody who swept may have removed it before we had the lock.
        match fs::metadata(group) {
            Ok(found) if found.ino() == lock.metadata()?.ino() => return Ok(lock),
            _ => {}
        }
    }
}

/// Directories that hold the groups at the top, in a stable order.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![ROOT.into()];
    }
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    // Some are symbolic links to the others.
    let folders = entries.flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok());
    let is_hierarchy = |path: &PathBuf| path.join("cgroup.procs").exists();
    folders.filter(is_hierarchy).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Every group of that name that there is.
pub fn find(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).filter(|group| group.exists()).collect()
}

/// The group somewhere below `name` that is called `leaf`, where memory is counted.
pub fn find_below(name: &str, leaf: &str) -> Option<PathBuf> {
    let counts_memory = |group: &PathBuf| {
        group.join("memory.usage_in_bytes").exists() || group.join("memory.current").exists()
    };
    let mut left: Vec<_> = find(name).into_iter().filter(counts_memory).collect();
    while let Some(group) = left.pop() {
        if group.ends_with(leaf) {
            return Some(group);
        }
        left.extend(children(&group));
    }
    None
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Removes the groups of runs that were killed together with their leashes.
pub fn sweep() {
    let hierarchies = hierarchies();
    let Some(first) = hierarchies.first() else { return };
    let all = hierarchies.iter().flat_map(|hierarchy| children(hierarchy));
    let names = all.filter_map(|group| Some(group.file_name()?.to_str()?.to_owned()));
    for name in names.filter(|name| name.starts_with(PREFIX)).collect::<BTreeSet<_>>() {
        let lock = File::open(first.join(&name));
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_err()) {
            continue;
        }
        // Not ours to complain about.
        let _ = remove(&name, Duration::ZERO);
    }
}

fn remove(name: &str, limit: Duration) -> io::Result<()> {
    // The first, which is locked, goes last.
    hierarchies().iter().rev().try_for_each(|hierarchy| remove_tree(&hierarchy.join(name), limit))
}

fn remove_tree(group: &Path, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let below = children(group).iter().try_for_each(|child| remove_tree(child, Duration::ZERO));
        match below.and_then(|()| fs::remove_dir(group)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < end => std::thread::park_timeout(Duration::from_millis(10)),
            removed => return removed,
        }
    }
}
