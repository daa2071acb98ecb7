//! The processes of a cluster: what each is called and how it is started.

use super::{MASTER_HOST, Options};
use crate::prerequisites;
use crate::sandbox::Sandbox;
use anyhow::Result;
use std::fmt;
use std::process::Command;

/// One process of a cluster. Workers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Master,
    JobMaster,
    Worker(usize),
    JobWorker(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::JobMaster => f.write_str("job-master"),
            Self::Worker(number) => write!(f, "worker-{number}"),
            Self::JobWorker(number) => write!(f, "job-worker-{number}"),
        }
    }
}

impl Role {
    /// Last octet of its address.
    pub(super) fn host(self) -> usize {
        match self {
            Self::Master | Self::JobMaster => MASTER_HOST,
            Self::Worker(number) | Self::JobWorker(number) => MASTER_HOST + number,
        }
    }

    /// The port for RPCs.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Master => 19_998,
            Self::JobMaster => 20_001,
            Self::Worker(_) => 29_999,
            Self::JobWorker(_) => 30_001,
        }
    }

    /// The command line that runs it.
    pub(super) fn command(self, sandbox: &Sandbox, options: &Options) -> Result<Command> {
        let directory = sandbox.directory().display();
        let host = sandbox.address(self.host());
        let (heap, direct, class) = match self {
            Self::Master => (options.master_heap, "256m", "alluxio.master.AlluxioMaster"),
            Self::JobMaster => (256, "256m", "alluxio.master.AlluxioJobMaster"),
            // A whole block may be in direct memory, several at once.
            Self::Worker(_) => (options.worker_heap, "1g", "alluxio.worker.AlluxioWorker"),
            Self::JobWorker(_) => (192, "256m", "alluxio.worker.AlluxioJobWorker"),
        };
        let mut command = java(sandbox, options.version, &self.to_string(), "log4j.properties")?;
        command.arg(format!("-Xmx{heap}m")).arg(format!("-XX:MaxDirectMemorySize={direct}"));
        let mut set = |name: &str, value: &str| {
            command.arg(format!("-D{name}={value}"));
        };
        match self {
            Self::Master | Self::JobMaster => {}
            Self::Worker(_) => {
                for name in ["hostname", "bind.host", "web.hostname", "web.bind.host"] {
                    set(&format!("alluxio.worker.{name}"), &host);
                }
                set("alluxio.user.hostname", &host);
                set("alluxio.worker.data.folder", "/");
                set("alluxio.worker.tieredstore.level0.dirs.path", &format!("{directory}/{self}"));
            }
            Self::JobWorker(_) => {
                for name in ["hostname", "bind.host", "web.bind.host"] {
                    set(&format!("alluxio.job.worker.{name}"), &host);
                }
                set("alluxio.worker.hostname", &host);
                set("alluxio.user.hostname", &host);
            }
        }
        command.arg(class);
        Ok(command)
    }
}

/// Formats the journal.
pub(super) fn format_command(sandbox: &Sandbox, version: &str) -> Result<Command> {
    let mut command = java(sandbox, version, "format", "log4j-shell.properties")?;
    command.args(["-Xmx128m", "alluxio.cli.Format", "MASTER"]);
    Ok(command)
}

/// `java` with what all processes share: small and quick to start rather than fast.
fn java(sandbox: &Sandbox, version: &str, role: &str, logging: &str) -> Result<Command> {
    let directory = sandbox.directory().display();
    let mut command = Command::new(prerequisites::java()?);
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xss512k", "-cp"]);
    command.arg(prerequisites::class_path(version)?);
    command.arg(format!("-Dpreload.role={role}"));
    command.arg(format!("-Dlog4j.configuration=file:{directory}/conf/{logging}"));
    command.arg(format!("-Dalluxio.conf.dir={directory}/conf"));
    command.arg(format!("-Dalluxio.site.conf.dir={directory}/conf/"));
    command.arg(format!("-Dalluxio.logs.dir={directory}/logs"));
    // In the POSIX locale a JVM cannot name files outside ASCII.
    command.env("LC_ALL", "C.UTF-8").current_dir(sandbox.directory());
    Ok(command)
}
