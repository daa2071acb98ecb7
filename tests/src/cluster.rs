//! A real Alluxio on loopback: master, job master, and workers with an address each, in a sandbox.
//!
//! Invariants: it is ready when [`Cluster::start`] returns, that is, every worker and job worker has
//! registered; and it is gone when it is dropped or the test process has ended, in whatever way.

mod launcher;
mod options;
mod readiness;
mod role;

pub use options::{Authentication, MIB, Options};
pub use role::Role;

use crate::data::Data;
use crate::leash::{Exit, Leash};
use crate::oracle::Oracle;
use crate::sandbox::{Output, Sandbox};
use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use readiness::START_LIMIT;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Last octet of the master's address; workers follow.
const MASTER_HOST: usize = 1;
const MASTER_WEB_PORT: u16 = 19_999;

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the processes, then the directory they use.
    roles: Mutex<BTreeMap<Role, Running>>,
    mounts: Mutex<BTreeMap<String, PathBuf>>,
    launcher: PathBuf,
    options: Options,
    sandbox: Sandbox,
}

#[derive(Debug)]
struct Running {
    leash: Leash,
    /// Length of its master's log when it was started: its registration comes later.
    log_start: u64,
}

/// The cluster that all tests share which do no harm to it: default options, but 2 GiB of cache per worker.
/// Keep to directories of your own ([`Cluster::data`]), below 200 MB a test, and never load `/`.
pub async fn shared() -> Result<&'static Cluster> {
    // A start that failed is not tried again by every test.
    static SHARED: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    let options = Options { worker_quota: 2048 * MIB, ..Options::default() };
    let cluster =
        SHARED.get_or_init(async || Cluster::start(options).await.map_err(|e| format!("{e:#}"))).await;
    cluster.as_ref().map_err(|error| anyhow::anyhow!("the shared cluster did not start: {error}"))
}

impl Cluster {
    pub async fn start(options: Options) -> Result<Self> {
        let sandbox = Sandbox::new()?;
        options.write(&sandbox)?;
        let launcher = launcher::write(&sandbox, options.version)?;
        let mounts = BTreeMap::from([("/".to_owned(), sandbox.directory().join("ufs"))]);
        let cluster =
            Self { roles: Mutex::default(), mounts: Mutex::new(mounts), launcher, options, sandbox };
        cluster.format().await?;
        for role in cluster.all_roles() {
            cluster.spawn(role)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Gives the master, which must not run, a new and empty journal: it starts as another cluster.
    pub async fn format(&self) -> Result<()> {
        let format = role::format_command(&self.sandbox, self.options.version)?;
        self.sandbox.run(&format, START_LIMIT).await?.success().context("format the journal").map(drop)
    }

    fn all_roles(&self) -> Vec<Role> {
        let workers = 1..=self.options.workers;
        let mut roles = vec![Role::Master];
        roles.extend(workers.clone().map(Role::Worker));
        if self.options.job_service {
            roles.push(Role::JobMaster);
            roles.extend(workers.map(Role::JobWorker));
        }
        roles
    }

    // === processes ===

    fn roles(&self) -> MutexGuard<'_, BTreeMap<Role, Running>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, role: Role) -> Result<()> {
        let command = role.command(&self.sandbox, &self.options)?;
        let directory = self.worker_directory(role);
        if matches!(role, Role::Worker(_)) && !directory.exists() {
            let made = match self.options.cache_in_memory {
                true => self.sandbox.memory_folder(&role.to_string()).map(drop),
                false => fs::create_dir(&directory).map_err(Into::into),
            };
            made.context("make the worker's directory")?;
        }
        let mut roles = self.roles();
        if roles.get(&role).is_some_and(|running| running.leash.is_running()) {
            bail!("{role} runs already");
        }
        let (masters_log, servants): (_, fn(&Role) -> bool) = match role {
            Role::Master | Role::Worker(_) => {
                (self.log(Role::Master), |role| matches!(role, Role::Worker(_)))
            }
            Role::JobMaster | Role::JobWorker(_) => {
                (self.log(Role::JobMaster), |role| matches!(role, Role::JobWorker(_)))
            }
        };
        let log_start = fs::metadata(masters_log).map_or(0, |log| log.len());
        if matches!(role, Role::Master | Role::JobMaster) {
            // Its workers have to register again.
            roles.iter_mut().filter(|(role, _)| servants(role)).for_each(|(_, r)| r.log_start = log_start);
        }
        let output = self.sandbox.directory().join(format!("logs/{role}.out"));
        let leash = Leash::start(&command, &output, &output).with_context(|| format!("start {role}"))?;
        roles.insert(role, Running { leash, log_start });
        Ok(())
    }

    /// Starts a process again that has ended, and waits until it is of use.
    pub async fn start_role(&self, role: Role) -> Result<()> {
        self.spawn(role)?;
        self.ready().await
    }

    /// Sends any signal, such as SIGSTOP for a silent worker and SIGCONT to wake it.
    pub fn signal(&self, role: Role, signal: Signal) -> Result<()> {
        self.roles().get(&role).with_context(|| format!("there is no {role}"))?.leash.signal(signal)
    }

    /// Sends a deadly signal and waits for the end.
    pub async fn kill(&self, role: Role, signal: Signal) -> Result<Exit> {
        let exited = {
            let roles = self.roles();
            let running = roles.get(&role).with_context(|| format!("there is no {role}"))?;
            running.leash.signal(signal)?;
            running.leash.exited(wait::LIMIT)
        };
        exited.await.with_context(|| format!("wait for the end of {role}"))
    }

    /// Roles that run, with their process ids.
    pub fn pids(&self) -> BTreeMap<Role, u32> {
        let roles = self.roles();
        roles.iter().filter(|(_, r)| r.leash.is_running()).map(|(role, r)| (*role, r.leash.pid())).collect()
    }

    /// Kills everything and removes the directory; dropping does the same. Fails if a process is left.
    pub fn stop(self) -> Result<()> {
        let directory = self.sandbox.directory().to_owned();
        drop(self);
        let left = crate::processes::naming(&directory);
        if !left.is_empty() {
            bail!("processes are left: {left:?}");
        }
        Ok(())
    }

    // === where things are ===

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The executable that a sidecar gets as `--alluxio`.
    pub fn launcher(&self) -> &Path {
        &self.launcher
    }

    /// Directory of the under file system that is mounted at `/`.
    pub fn ufs(&self) -> PathBuf {
        self.sandbox.directory().join("ufs")
    }

    /// The loopback address of a process.
    pub fn address(&self, role: Role) -> String {
        self.sandbox.address(role.host())
    }

    /// `HOST:PORT` of the master's RPCs.
    pub fn master_address(&self) -> String {
        format!("{}:{}", self.address(Role::Master), Role::Master.port())
    }

    /// `HOST:PORT` of the job master's RPCs.
    pub fn job_master_address(&self) -> String {
        format!("{}:{}", self.address(Role::JobMaster), Role::JobMaster.port())
    }

    /// `HOST:PORT` of the master's web pages.
    pub fn web_address(&self) -> String {
        format!("{}:{MASTER_WEB_PORT}", self.address(Role::Master))
    }

    /// Where a worker keeps its blocks: one file each, named after the block's id.
    pub fn worker_directory(&self, worker: Role) -> PathBuf {
        self.sandbox.directory().join(worker.to_string())
    }

    /// What a process logs.
    pub fn log(&self, role: Role) -> PathBuf {
        self.sandbox.directory().join(format!("logs/{role}.log"))
    }

    /// The last lines of every log that do not say that all is well.
    pub fn log_excerpt(&self) -> String {
        let mut excerpt = format!("logs of Alluxio in {}:", self.sandbox.directory().display());
        for role in self.all_roles() {
            let output = self.sandbox.directory().join(format!("logs/{role}.out"));
            for path in [output, self.log(role)] {
                let text =
                    fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
                let lines: Vec<_> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
                for line in &lines[lines.len().saturating_sub(5)..] {
                    excerpt.push_str(&format!("\n  {role}: {}", line.chars().take(300).collect::<String>()));
                }
            }
        }
        excerpt
    }

    // === use ===

    /// A fresh directory in the under file system.
    pub fn data(&self, name: &str) -> Result<Data> {
        let name = format!("{name}-{}", self.sandbox.number());
        Data::create(self.ufs().join(&name), format!("/{name}"))
    }

    /// The second route: block files on the workers' disks.
    pub fn oracle(&self) -> Oracle<'_> {
        Oracle::new(self)
    }

    /// Runs the real command line, such as `["fs", "ls", "-R", "/"]`; one JVM, one to three seconds.
    pub async fn alluxio<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        let mut command = Command::new(&self.launcher);
        // Alluxio prints `?` for everything else in the POSIX locale.
        command.args(arguments).env("LC_ALL", "C.UTF-8").current_dir(self.sandbox.directory());
        self.sandbox.run(&command, wait::LIMIT).await
    }

    /// Mounts a new directory of the under file system at `path` and gives it as data.
    pub async fn mount(&self, path: &str) -> Result<Data> {
        let ufs = self.sandbox.folder("mount")?;
        let arguments = ["fs", "mount", path, &ufs.to_string_lossy()];
        self.alluxio(&arguments).await?.success().with_context(|| format!("mount {path}"))?;
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), ufs.clone());
        Ok(Data::at(ufs, path.to_owned()))
    }

    /// The file of the under file system behind an Alluxio path.
    pub fn ufs_path(&self, path: &str) -> PathBuf {
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |mount: &str| {
            let rest = path.strip_prefix(mount.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
        };
        // The longest mount point wins; `/` matches always.
        let found = mounts.iter().rev().find_map(|(mount, ufs)| Some(ufs.join(below(mount)?)));
        found.unwrap_or_else(|| self.ufs().join(path.trim_start_matches('/')))
    }

    /// JVMs of the command line that run now, whoever started them.
    pub fn command_lines(&self) -> Vec<crate::processes::Process> {
        let mut processes = self.sandbox.processes();
        processes.retain(|process| process.command.contains(" alluxio.cli."));
        processes
    }
}
