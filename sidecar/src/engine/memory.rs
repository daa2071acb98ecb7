//! How much heap a command's JVM gets: what it needs, less where the container has not that much.
//!
//! Without this a JVM grows until the kernel ends it, and the load with it; with a bound it collects garbage.

use std::{fs, path::Path};

const MIB: u64 = 1 << 20;
/// Of a command that loads a million files, and what it is given where nothing limits memory.
const HEAP: u64 = 512;
/// A command of a few thousand files still ends with it; with less the JVM spends its time on collecting.
const LEAST_HEAP: u64 = 64;
/// Of a JVM besides its heap: classes, compiled code, stacks, buffers.
const JVM: u64 = 192;
/// The sidecar itself.
const SIDECAR: u64 = 64;

/// What a command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    pub mebibytes: u64,
    /// Less than it would be without this limit, in MiB.
    pub reduced_by: Option<u64>,
}

impl Default for Heap {
    fn default() -> Self {
        Self { mebibytes: HEAP, reduced_by: None }
    }
}

impl Heap {
    /// Of each of `running` commands at once, under `limit` bytes for all of the container.
    #[must_use]
    pub fn under(limit: Option<u64>, running: usize) -> Self {
        let Some(limit) = limit.map(|bytes| bytes / MIB) else { return Self::default() };
        let each = limit.saturating_sub(SIDECAR) / u64::try_from(running.max(1)).unwrap_or(u64::MAX);
        match each.saturating_sub(JVM) {
            enough if enough >= HEAP => Self::default(),
            less => Self { mebibytes: less.max(LEAST_HEAP), reduced_by: Some(limit) },
        }
    }

    /// The limit is smaller than what a command needs at least: the kernel may end it.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.reduced_by.is_some() && self.mebibytes <= LEAST_HEAP
    }
}

/// The memory limit of the control group that this process is in, or of one above it, in bytes.
#[must_use]
pub fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: &Path| fs::read_to_string(path).ok();
    // Far beyond any machine: version 1 has no other word for "none".
    files(&groups)
        .iter()
        .filter_map(|file| parse(&read(Path::new(file))?))
        .filter(|bytes| *bytes < 1 << 60)
        .min()
}

/// Where limits may be, by the content of /proc/self/cgroup. In a container the names are often those of the
/// host, and the group itself is what is mounted.
fn files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        files.extend(ancestors.map(|path| Path::new(root).join(path).join(file).display().to_string()));
    }
    files
}

fn parse(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_fits_under_the_limit() {
        for (limit, running, heap) in [
            (None, 1, 512),
            (Some(4096), 1, 512),
            (Some(768), 1, 512),
            (Some(767), 1, 511),
            (Some(512), 1, 256),
            (Some(300), 1, 64),
            (Some(1), 1, 64),
            (Some(4096), 4, 512),
            (Some(1024), 4, 64),
            (Some(1536), 2, 512),
        ] {
            let found = Heap::under(limit.map(|mebibytes| mebibytes * MIB), running);
            assert_eq!(found.mebibytes, heap, "{limit:?} {running}");
            assert_eq!(found.reduced_by, limit.filter(|_| heap < 512), "{limit:?} {running}");
            assert_eq!(found.is_scarce(), heap == 64);
        }
    }

    #[test]
    fn limits_of_both_versions_are_found() {
        let first = "9:name=systemd:/\n4:memory:/kubepods/pod1/c1\n3:cpuset:/\n";
        assert_eq!(
            files(first),
            [
                "/sys/fs/cgroup/memory/kubepods/pod1/c1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert_eq!(files("0::/a\n"), ["/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]);
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!((parse("536870912\n"), parse("max\n")), (Some(512 * MIB), None));
    }
}
