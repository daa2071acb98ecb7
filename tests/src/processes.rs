//! What runs on this machine, read from `/proc`. Never signals anybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A process as it was when we looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// Arguments joined by blanks; empty for a zombie.
    pub command: String,
}

/// Every process except zombies.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(read).collect()
}

/// `None` when it is gone or a zombie.
fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ppid ...": the name may hold anything, also brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    Some(Process { pid, parent, command })
}

/// Children of `pid`, their children, and so on.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = all();
    let mut family = BTreeSet::from([pid]);
    loop {
        let before = family.len();
        family.extend(all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    all.into_iter().filter(|p| p.pid != pid && family.contains(&p.pid)).collect()
}

/// Processes whose arguments name this file or directory, except the harness's own leashes.
pub fn naming(path: &Path) -> Vec<Process> {
    let path = path.to_string_lossy();
    let is_leash = |p: &Process| {
        p.command.split(' ').next().is_some_and(|program| program.ends_with(crate::leash::PROGRAM))
    };
    all().into_iter().filter(|p| p.command.contains(&*path) && !is_leash(p)).collect()
}
