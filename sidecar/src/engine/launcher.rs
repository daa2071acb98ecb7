//! Alluxio's launcher script: finding it, and asking it what it can do and how it is configured.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    memory::Heap,
    output::Output,
    process::{self, Exit, ProcessError, Program},
    strays::Mark,
};

/// A JVM that only prints its usage needs 1.5 to 3 s; on a loaded node several times that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where official images have Alluxio.
const HOME: &str = "/opt/alluxio";

/// Of the work directory: logs, and lists of failed files that the command leaves under `./logs`.
const LOGS: &str = "logs";
const TEMPORARY: &str = "tmp";
/// Beyond, all of them are removed before the next command. The supervisor bounds each file.
const MAX_LOGS: u64 = 64 << 20;

/// Runs the script.
#[derive(Debug)]
pub struct Launcher {
    script: PathBuf,
    supervisor: PathBuf,
    work_directory: PathBuf,
    heap: Heap,
    store: Uuid,
    abilities: Mutex<Option<Abilities>>,
}

/// What this Alluxio's `distributedLoad` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    pub distributed_load: bool,
}

/// Where Alluxio's servers are, by its own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `host:port`.
    pub masters: Vec<String>,
    pub job_masters: Vec<String>,
    /// alluxio.security.login.username; `None`: the user of the process.
    pub user: Option<String>,
}

/// The launcher cannot be used. The operator corrects `--alluxio` or the container.
#[derive(Debug, Error)]
pub enum LauncherError {
    #[error(
        "no executable alluxio script: {tried}; give --alluxio, or set ALLUXIO_HOME or PATH; with --alluxio-master \
         engine NATIVE needs none"
    )]
    NotFound { tried: String },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{command} ended with {exit:?}: {output}")]
    Failed { command: &'static str, exit: Exit, output: String },
    #[error("{command} gave no answer within {} s", PROBE_TIMEOUT.as_secs())]
    TimedOut { command: &'static str },
    #[error("alluxio getConf names no master: alluxio.master.hostname is empty; give --alluxio-master")]
    NoMaster,
}

/// Finds the script: `given`, else in `ALLUXIO_HOME/bin`, else in `PATH`, else where official images have it.
pub fn find(given: Option<&Path>) -> Result<PathBuf, LauncherError> {
    let candidates: Vec<PathBuf> = match given {
        Some(path) => vec![path.to_owned()],
        None => {
            let home = env::var_os("ALLUXIO_HOME").map(|home| PathBuf::from(home).join("bin"));
            let path = env::var_os("PATH").unwrap_or_default();
            let official = Path::new(HOME).join("bin");
            let all = home.into_iter().chain(env::split_paths(&path)).chain([official]);
            all.map(|dir| dir.join("alluxio")).collect()
        }
    };
    candidates.iter().find(|path| is_executable(path)).cloned().ok_or_else(|| {
        let mut tried: Vec<_> = candidates.iter().map(|c| c.display().to_string()).collect();
        tried.sort_unstable();
        tried.dedup();
        let tried = tried.join(", ");
        LauncherError::NotFound { tried }
    })
}

/// Bytes of the files below; what cannot be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

impl Launcher {
    /// `supervisor`: this binary. `work_directory`: where the command may leave files; nothing else need be
    /// writable. `store`: for which commands run.
    #[must_use]
    pub fn new(
        script: PathBuf,
        supervisor: PathBuf,
        work_directory: PathBuf,
        heap: Heap,
        store: Uuid,
    ) -> Self {
        Self { script, supervisor, work_directory, heap, store, abilities: Mutex::default() }
    }

    /// `alluxio ARGUMENTS...`, each as one argument, never through a shell of ours.
    #[must_use]
    pub fn program(&self, arguments: Vec<OsString>) -> Program {
        self.tidy();
        // The HotSpot JVM takes `_JAVA_OPTIONS` last, so it wins over the -Xmx16G that Fluid puts into Alluxio's
        // own variables: the shell of a load needs little, and must not push the master out of its memory limit.
        // No word of it may contain "version": Alluxio's script looks for that in what the JVM prints.
        let java =
            format!("-Xms32m -Xmx{}m -XX:-UsePerfData -Djava.io.tmpdir={TEMPORARY}", self.heap.mebibytes);
        let user_logs = format!("{LOGS}/user");
        let environment = [
            // With the POSIX locale the JVM cannot name non-ASCII paths.
            ("LC_ALL", "C.UTF-8"),
            ("_JAVA_OPTIONS", &java),
            // Relative to the directory that it runs in: the script takes these apart at blanks.
            ("ALLUXIO_LOGS_DIR", LOGS),
            ("ALLUXIO_USER_LOGS_DIR", &user_logs),
            // Each thread of a JVM may else have 64 MiB of address space that is given back late.
            ("MALLOC_ARENA_MAX", "2"),
        ];
        Program {
            supervisor: self.supervisor.clone(),
            program: self.script.clone(),
            arguments,
            environment: environment.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            directory: self.work_directory.clone(),
            mark: Mark::new(self.store),
        }
    }

    /// Makes what the command expects to be there, and removes what commands left when that is much.
    fn tidy(&self) {
        let logs = self.work_directory.join(LOGS);
        if size_of(&logs) > MAX_LOGS
            && let Err(error) = fs::remove_dir_all(&logs)
        {
            tracing::warn!(%error, logs = %logs.display(), "old logs of commands cannot be removed");
        }
        for folder in [logs, self.work_directory.join(TEMPORARY)] {
            if let Err(error) = fs::create_dir_all(&folder) {
                tracing::warn!(%error, folder = %folder.display(), "a folder for commands cannot be made");
            }
        }
    }

    /// Asks the command for its usage, once in the life of the process.
    pub async fn abilities(&self) -> Result<Abilities, LauncherError> {
        let mut known = self.abilities.lock().await;
        if let Some(abilities) = *known {
            return Ok(abilities);
        }
        let command = "alluxio fs distributedLoad";
        let (exit, text) = self.ask(command, vec!["fs".into(), "distributedLoad".into()]).await?;
        let abilities = if text.contains("Usage: distributedLoad") {
            Abilities { distributed_load: true }
        } else if is_unknown(&text) {
            Abilities { distributed_load: false }
        } else {
            return Err(LauncherError::Failed { command, exit, output: last_words(&text) });
        };
        *known = Some(abilities);
        Ok(abilities)
    }

    /// Asks `alluxio getConf`, which knows every source of configuration that Alluxio has.
    pub async fn endpoints(&self) -> Result<Endpoints, LauncherError> {
        let command = "alluxio getConf";
        let (exit, text) = self.ask(command, vec!["getConf".into()]).await?;
        if exit != Exit::Code(0) {
            return Err(LauncherError::Failed { command, exit, output: last_words(&text) });
        }
        endpoints_of(&text).ok_or(LauncherError::NoMaster)
    }

    async fn ask(
        &self,
        command: &'static str,
        arguments: Vec<OsString>,
    ) -> Result<(Exit, String), LauncherError> {
        const MAX_ANSWER: usize = 1 << 20;
        let stop = CancellationToken::new();
        let mut text = String::new();
        let program = self.program(arguments);
        let run = process::run(
            &program,
            |line| {
                if text.len() < MAX_ANSWER {
                    text.push_str(&String::from_utf8_lossy(line));
                    text.push('\n');
                }
            },
            &stop,
        );
        let exit = tokio::time::timeout(PROBE_TIMEOUT, run)
            .await
            .map_err(|_| LauncherError::TimedOut { command })??;
        Ok((exit, text))
    }
}

fn is_unknown(text: &str) -> bool {
    let mut output = Output::default();
    for line in text.lines() {
        output.read(line.as_bytes());
    }
    output.unknown_command
}

fn last_words(text: &str) -> String {
    let mut output = Output::default();
    for line in text.lines() {
        output.read(line.as_bytes());
    }
    output.tail(3)
}

/// Reads the `key=value` lines of `alluxio getConf`.
fn endpoints_of(text: &str) -> Option<Endpoints> {
    let values: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let get = |key: &str| values.get(key).copied().filter(|value| !value.is_empty());
    let servers = |addresses: &str, host: &str, port: &str, journal: &str| -> Vec<String> {
        let port = get(port);
        if let Some(list) = get(addresses) {
            return list.split(',').map(|a| a.trim().to_owned()).collect();
        }
        let Some(port) = port else { return Vec::new() };
        // HA with an embedded journal: the masters are where the journal's members are.
        let members =
            get(journal).map(|list| list.split(',').filter_map(|a| a.rsplit_once(':')).map(|(h, _)| h));
        match (members, get(host)) {
            (Some(members), _) => members.map(|h| format!("{}:{port}", h.trim())).collect(),
            (None, Some(host)) => vec![format!("{host}:{port}")],
            (None, None) => Vec::new(),
        }
    };
    let masters = servers(
        "alluxio.master.rpc.addresses",
        "alluxio.master.hostname",
        "alluxio.master.rpc.port",
        "alluxio.master.embedded.journal.addresses",
    );
    let job_masters = servers(
        "alluxio.job.master.rpc.addresses",
        "alluxio.job.master.hostname",
        "alluxio.job.master.rpc.port",
        "alluxio.job.master.embedded.journal.addresses",
    );
    let user = get("alluxio.security.login.username").map(str::to_owned);
    (!masters.is_empty()).then_some(Endpoints { masters, job_masters, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_master() {
        let text = "alluxio.job.master.hostname=127.0.0.1\nalluxio.job.master.rpc.port=20001\n\
                    alluxio.master.hostname=127.0.0.1\nalluxio.master.rpc.addresses=\n\
                    alluxio.master.rpc.port=19998\nalluxio.security.login.username=\nWARNING: a line without sense\n";
        let endpoints = endpoints_of(text).unwrap();
        assert_eq!(endpoints.masters, ["127.0.0.1:19998"]);
        assert_eq!(endpoints.job_masters, ["127.0.0.1:20001"]);
        assert_eq!(endpoints.user, None);
    }

    #[test]
    fn masters_of_an_embedded_journal() {
        let text = "alluxio.master.hostname=m0\nalluxio.master.rpc.port=19998\n\
                    alluxio.master.embedded.journal.addresses=m0:19200,m1:19200\n";
        assert_eq!(endpoints_of(text).unwrap().masters, ["m0:19998", "m1:19998"]);
    }

    #[test]
    fn no_master_is_no_answer() {
        assert_eq!(endpoints_of("alluxio.master.rpc.port=19998"), None);
    }

    #[test]
    fn a_missing_script_is_named() {
        let error = find(Some(Path::new("/nowhere/alluxio"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/alluxio") && error.contains("--alluxio"));
    }
}
