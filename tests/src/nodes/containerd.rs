//! containerd on a machine: its configuration, its process, and images for it.

use crate::leash::{Exit, Leash};
use crate::machine::Machine;
use crate::prerequisites;
use crate::sandbox::Sandbox;
use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longest wait for the import of an image.
const IMPORT_LIMIT: Duration = Duration::from_secs(180);
/// Where the kubelet looks for images and containers.
const NAMESPACE: &str = "k8s.io";

/// A containerd whose files are all in one directory. Dropping it ends it, not its containers: those go with
/// the machine.
#[derive(Debug)]
pub(super) struct Containerd {
    directory: PathBuf,
    leash: Leash,
}

impl Containerd {
    /// Starts it and waits until it answers. Its images are those below `root` in `directory`.
    pub(super) async fn start(machine: &Machine, sandbox: &Sandbox, directory: &Path) -> Result<Self> {
        fs::write(directory.join("containerd.toml"), configuration(directory))
            .context("write the configuration of containerd")?;
        let mut command = Command::new(prerequisites::program("containerd")?);
        command.arg("--config").arg(directory.join("containerd.toml"));
        let log = directory.join("containerd.log");
        let leash = machine.start(&command, &log, &log).context("start containerd")?;
        let containerd = Self { directory: directory.to_owned(), leash };
        wait::until("containerd to answer", wait::LIMIT, async || {
            if let Some(exit) = containerd.leash.exit() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Ok(Some(Err(anyhow::anyhow!("containerd has ended with {exit:?}:\n{log}"))));
            }
            if !containerd.socket().exists() {
                return Ok(None);
            }
            containerd.ctr(machine, sandbox, &["version"]).await?;
            Ok(Some(Ok(())))
        })
        .await??;
        Ok(containerd)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Runs containerd's command line.
    pub(super) async fn ctr(
        &self,
        machine: &Machine,
        sandbox: &Sandbox,
        arguments: &[&str],
    ) -> Result<String> {
        let mut command = Command::new(prerequisites::program("ctr")?);
        command.arg("--address").arg(self.socket()).args(["--namespace", NAMESPACE]).args(arguments);
        let output = machine.run(sandbox, &command, IMPORT_LIMIT).await?;
        output.success().with_context(|| format!("ctr {arguments:?}"))
    }

    /// Takes in the image of an OCI archive.
    pub(super) async fn import(&self, machine: &Machine, sandbox: &Sandbox, archive: &Path) -> Result<()> {
        let archive = archive.to_string_lossy();
        self.ctr(machine, sandbox, &["images", "import", &archive]).await.map(drop)
    }

    /// Ends it in good order, so that what it has stored is whole.
    pub(super) async fn stop(self) -> Result<()> {
        self.leash.signal(Signal::SIGTERM)?;
        match self.leash.exited(wait::LIMIT).await? {
            Exit::Code(0) => Ok(()),
            exit => bail!("containerd ended with {exit:?}"),
        }
    }
}

fn configuration(directory: &Path) -> String {
    let pause = super::catalogue::PAUSE;
    let cni = prerequisites::CNI;
    let directory = directory.display();
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{directory}/containerd.sock"

[ttrpc]
  address = "{directory}/containerd.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Only CAP_SYS_RESOURCE may lower it, which a sandboxed machine lacks.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{directory}/cni"
"#
    )
}
