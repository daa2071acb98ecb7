//! What a process listens on, as the kernel tells it.

use anyhow::{Context, Result};
use std::collections::{BTreeSet, HashSet};
use std::fs;

/// Ports of TCP and UDP as `tcp 29700`, and Unix sockets as `unix PATH`.
pub fn listening(pid: u32) -> Result<BTreeSet<String>> {
    let mut own = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).context("read the open files")? {
        // An error: closed meanwhile.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        own.extend(target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')).map(str::to_owned));
    }
    let mut found = BTreeSet::new();
    for kind in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = columns[..] else { continue };
            let listens = kind.starts_with("udp") || state == "0A";
            if listens && columns.get(9).is_some_and(|inode| own.contains(*inode)) {
                let port = local.rsplit(':').next().unwrap_or_default();
                let port = u16::from_str_radix(port, 16).context("read a port")?;
                found.insert(format!("{} {port}", kind.trim_end_matches('6')));
            }
        }
    }
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).context("read the Unix sockets")?;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let accepts = columns.get(3).is_some_and(|flags| *flags == "00010000");
        if accepts && columns.get(6).is_some_and(|inode| own.contains(*inode)) {
            found.insert(format!("unix {}", columns.get(7).unwrap_or(&"")));
        }
    }
    Ok(found)
}
