//! Ends commands that outlived their supervisor.
//!
//! The supervisor is a process like any other: kill it too, and nobody is left who knows of its command. So
//! every command carries a mark in its environment, which its descendants inherit: the store that it works
//! for, and its run. A store has one sidecar at a time (`store` holds a lock), so whatever carries its mark
//! when a sidecar starts is left from one that is dead.
//!
//! Never touches a process without the mark, nor this one.

use std::{collections::BTreeSet, fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};
use uuid::Uuid;

/// Name of the variable; its value is [`Mark`].
pub const VARIABLE: &str = "PRELOAD_SIDECAR_RUN";

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);
/// A process that got KILL is gone in a moment, unless the kernel holds it: a disk that does not answer.
const LOOKS: u32 = 100;

/// `STORE/RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// That of a new run.
    #[must_use]
    pub fn new(store: Uuid) -> Self {
        Self(format!("{store}/{}", Uuid::new_v4()))
    }

    /// Of every run for `store`.
    #[must_use]
    pub fn of_all(store: Uuid) -> Self {
        Self(format!("{store}/"))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Kills every process that carries `mark`, and tells how many those were. Some milliseconds when there are
/// none.
pub async fn end(mark: Mark) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..LOOKS {
        let wanted = mark.clone();
        let found = tokio::task::spawn_blocking(move || carriers(&wanted)).await.unwrap_or_default();
        if found.is_empty() {
            break;
        }
        for pid in found {
            // An error: it is gone.
            let _ = kill(pid, Signal::SIGKILL);
            killed.insert(pid);
        }
        tokio::time::sleep(PAUSE).await;
    }
    killed.len()
}

/// Processes whose environment we may read; all that we started are among them. Zombies have none.
fn carriers(mark: &Mark) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let wanted = format!("{VARIABLE}={}", mark.0);
    let carries = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    };
    entries
        .flatten()
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
        .filter(|pid| *pid != getpid() && carries(pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that waits for a child of its own.
    fn sleeper(mark: &Mark) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]).env(VARIABLE, mark.as_str());
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn all_that_carry_the_mark_end_and_no_other() {
        let (ours, others) = (Uuid::new_v4(), Uuid::new_v4());
        let (first, second) = (Mark::new(ours), Mark::new(ours));
        let (mut one, mut two, mut other) = (sleeper(&first), sleeper(&second), sleeper(&Mark::new(others)));
        while [&first, &second].iter().any(|mark| carriers(mark).len() < 2) {
            tokio::task::yield_now().await;
        }
        assert!(end(first.clone()).await >= 2);
        assert!(!one.wait().unwrap().success());
        assert_eq!((carriers(&first), two.try_wait().unwrap()), (vec![], None));
        assert!(end(Mark::of_all(ours)).await >= 2);
        assert!(!two.wait().unwrap().success());
        assert_eq!((end(Mark::of_all(ours)).await, other.try_wait().unwrap()), (0, None));
        end(Mark::of_all(others)).await;
        other.wait().unwrap();
    }
}
