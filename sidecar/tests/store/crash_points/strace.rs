//! Runs a child under strace: lists what it does to its files, or makes one of these calls fail.
//!
//! strace counts each thread's calls by themselves. With `--trace-path` it counts those on one file only, and a file
//! is mostly written by one thread.

use std::{
    collections::BTreeMap, env, fs, os::unix::process::ExitStatusExt as _, path::Path, process::Command,
};

/// Whatever changes a file, or makes a change durable; `?`: not every machine has it.
const WRITES: &str = "write,writev,pwrite64,pwritev,?pwritev2,?copy_file_range,?sendfile,fsync,fdatasync,\
    ?sync_file_range,fallocate,?truncate,ftruncate,?rename,?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,\
    ?mkdir,?mkdirat,?rmdir";
pub(super) const READ: &str = "pread64";

/// One line of the trace.
#[derive(Debug)]
pub(super) struct Call {
    thread: u32,
    name: String,
    /// Below the folder.
    file: String,
    pub(super) text: String,
}

/// A child that has ended, or was killed.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) killed: bool,
    /// How many errors were injected.
    pub(super) errors: usize,
    pub(super) calls: Vec<Call>,
    pub(super) output: Vec<String>,
}

/// All calls of one name on one file.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) call: String,
    pub(super) file: String,
    /// What the threads did, most first.
    pub(super) per_thread: Vec<usize>,
}

/// What happens at the `point`th call of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault<'a> {
    pub(super) kind: &'a str,
    pub(super) target: &'a Target,
    pub(super) point: usize,
}

impl Run {
    /// The child in `folder`.
    pub(super) fn new(folder: &Path, variables: &[(&str, String)], fault: Option<Fault<'_>>) -> Self {
        let trace = folder.with_extension("trace");
        let mut strace = Command::new("strace");
        strace.args(["--follow-forks", "--decode-fds=path", "--string-limit=0", "--quiet=all", "--output"]);
        strace.arg(&trace);
        match fault {
            None => _ = strace.arg(format!("--trace={WRITES},{READ}")),
            Some(Fault { kind, target: Target { call, file, .. }, point }) => {
                strace.arg(format!("--trace={call}")).arg("--trace-path").arg(folder.join(file));
                strace.arg(format!("--inject={call}:{kind}:when={point}"));
            }
        }
        let output = strace
            .arg(env::current_exe().unwrap())
            .args(["--exact", "crash_points::child", "--nocapture", "--test-threads=1"])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("strace is missing: run 'sudo apt-get install -y strace'");
        let text = fs::read_to_string(&trace).unwrap();
        fs::remove_file(&trace).unwrap();
        let run = Self {
            killed: output.status.signal() == Some(9),
            errors: text.matches("(INJECTED)").count(),
            calls: text.lines().filter_map(|line| Call::parse(line, folder)).collect(),
            output: String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        };
        let ended = run.output.iter().any(|line| line == "done" || line.starts_with("closed "));
        assert!(run.killed || (output.status.success() && ended), "{fault:?}: {output:?}");
        run
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        let mut counts: BTreeMap<(&str, &str), BTreeMap<u32, usize>> = BTreeMap::new();
        for call in &self.calls {
            *counts.entry((&call.file, &call.name)).or_default().entry(call.thread).or_default() += 1;
        }
        let targets = counts.into_iter().map(|((file, call), threads)| {
            let mut per_thread: Vec<_> = threads.into_values().collect();
            per_thread.sort_unstable_by(|a, b| b.cmp(a));
            Target { call: call.to_owned(), file: file.to_owned(), per_thread }
        });
        targets.collect()
    }
}

impl Call {
    /// `None`: about another file, or the end of a call that another line began.
    fn parse(line: &str, folder: &Path) -> Option<Self> {
        let (thread, text) = line.split_once(' ')?;
        let (name, arguments) = text.trim_start().split_once('(')?;
        let (_, file) = arguments.split_once(folder.to_str()?)?;
        let file = file.split(['>', '"']).next()?.trim_start_matches('/');
        Some(Self {
            thread: thread.parse().ok()?,
            name: name.to_owned(),
            file: file.to_owned(),
            text: text.to_owned(),
        })
    }
}
