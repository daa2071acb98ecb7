//! How a cluster is made: options, and the files that tell Alluxio about them.

use crate::prerequisites;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use std::fs;

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// Authentication of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    Simple,
    NoSasl,
}

/// `Options { workers: 3, ..Options::default() }`.
#[derive(Debug, Clone)]
pub struct Options {
    pub version: &'static str,
    /// Block workers, each with a job worker, each pair on its own address.
    pub workers: usize,
    /// Without it there are neither job master nor job workers.
    pub job_service: bool,
    /// Bytes of the cache of one worker.
    pub worker_quota: u64,
    /// The cache is in memory (`/dev/shm`), as Alluxio's own default has it, instead of on the disk.
    pub cache_in_memory: bool,
    /// Bytes.
    pub block_size: u64,
    /// MiB of heap: the master's grows with the files, a worker's with the blocks.
    pub master_heap: u32,
    pub worker_heap: u32,
    pub authentication: Authentication,
    /// More lines of alluxio-site.properties, which win over ours.
    pub properties: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: prerequisites::ALLUXIO,
            workers: 2,
            job_service: true,
            worker_quota: 256 * MIB,
            cache_in_memory: false,
            block_size: 16 * MIB,
            master_heap: 512,
            worker_heap: 320,
            authentication: Authentication::Simple,
            properties: Vec::new(),
        }
    }
}

impl Options {
    /// Makes the folders and the configuration of the cluster.
    pub(super) fn write(&self, sandbox: &Sandbox) -> Result<()> {
        let directory = sandbox.directory();
        for folder in ["bin", "conf", "journal", "logs", "ufs"] {
            fs::create_dir(directory.join(folder)).with_context(|| format!("make folder {folder}"))?;
        }
        let mut site = String::new();
        for (name, value) in self.properties(sandbox).iter().chain(&self.properties) {
            site.push_str(&format!("{name}={value}\n"));
        }
        fs::write(directory.join("conf/alluxio-site.properties"), site).context("write the properties")?;
        let logs = directory.join("logs").display().to_string();
        for (file, level, logs) in [
            ("log4j.properties", "INFO", logs.as_str()),
            ("log4j-shell.properties", "WARN", "${alluxio.logs.dir}"),
        ] {
            let text = format!(
                "log4j.rootLogger={level}, FILE\n\
                 log4j.appender.FILE=org.apache.log4j.FileAppender\n\
                 log4j.appender.FILE.File={logs}/${{preload.role}}.log\n\
                 log4j.appender.FILE.layout=org.apache.log4j.PatternLayout\n\
                 log4j.appender.FILE.layout.ConversionPattern=%d{{ISO8601}} %-5p %c{{1}} - %m%n\n\
                 # They warn at every start, of nothing that matters here.\n\
                 log4j.logger.alluxio.conf.InstancedConfiguration=ERROR\n\
                 log4j.logger.org.eclipse.jetty.security=ERROR\n"
            );
            fs::write(directory.join("conf").join(file), text).context("write the logging configuration")?;
        }
        Ok(())
    }

    fn properties(&self, sandbox: &Sandbox) -> Vec<(String, String)> {
        let directory = sandbox.directory().display();
        let master = sandbox.address(super::MASTER_HOST);
        let authentication = match self.authentication {
            Authentication::Simple => "SIMPLE",
            Authentication::NoSasl => "NOSASL",
        };
        let quota = format!("{}B", self.worker_quota);
        let mut properties: Vec<(String, String)> = [
            "alluxio.master.hostname",
            "alluxio.master.bind.host",
            "alluxio.master.web.bind.host",
            "alluxio.job.master.hostname",
            "alluxio.job.master.bind.host",
            "alluxio.job.master.web.bind.host",
        ]
        .map(|name| (name.to_owned(), master.clone()))
        .to_vec();
        let mut set = |name: &str, value: String| properties.push((name.to_owned(), value));
        set("alluxio.master.mount.table.root.ufs", format!("{directory}/ufs"));
        set("alluxio.master.journal.type", "UFS".to_owned());
        set("alluxio.master.journal.folder", format!("{directory}/journal"));
        set("alluxio.master.metastore", "HEAP".to_owned());
        set("alluxio.master.backup.directory", format!("{directory}/backup"));
        set("alluxio.work.dir", directory.to_string());
        set("alluxio.logs.dir", format!("{directory}/logs"));
        set("alluxio.security.authentication.type", authentication.to_owned());
        // Files belong to whoever runs the tests; what is tested is the load.
        set("alluxio.security.authorization.permission.enabled", "false".to_owned());
        set("alluxio.user.block.size.bytes.default", format!("{}B", self.block_size));
        set("alluxio.worker.ramdisk.size", quota.clone());
        set("alluxio.worker.tieredstore.levels", "1".to_owned());
        set("alluxio.worker.tieredstore.level0.alias", "MEM".to_owned());
        set("alluxio.worker.tieredstore.level0.dirs.quota", quota);
        // Every "host" is this machine: reads must go to the worker that was asked, not to its files.
        set("alluxio.user.short.circuit.enabled", "false".to_owned());
        // Nothing leaves this machine.
        set("alluxio.master.update.check.enabled", "false".to_owned());
        set("alluxio.user.metrics.collection.enabled", "false".to_owned());
        // The rest makes starting and stopping quicker.
        set("alluxio.master.startup.consistency.check.enabled", "false".to_owned());
        set("alluxio.master.worker.connect.wait.time", "1sec".to_owned());
        set("alluxio.master.journal.tailer.shutdown.quiet.wait.time", "0sec".to_owned());
        set("alluxio.master.journal.tailer.sleep.time", "200ms".to_owned());
        set("alluxio.worker.network.netty.shutdown.quiet.period", "0sec".to_owned());
        set("alluxio.web.threads", "4".to_owned());
        properties
    }
}
