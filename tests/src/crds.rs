//! Installs the CRDs into a test's Kubernetes, in each of the ways that users do.

use crate::kubernetes::{Kubernetes, Part, shared as shared_kubernetes};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use tokio::sync::OnceCell;

/// Which AlluxioRuntime a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crds {
    /// Fluid's, without our fields.
    StockFluid,
    /// Fluid's, with our patch.
    PatchedFluid,
    /// Ours.
    Standalone,
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Applies `deploy/crd` and what the users of `crds` have, and waits until it is served.
pub async fn install(kubernetes: &Kubernetes, crds: Crds) -> Result<()> {
    let runtime = match crds {
        Crds::StockFluid | Crds::PatchedFluid => "tests/kubernetes/fluid-alluxioruntime.yaml",
        Crds::Standalone => "deploy/crd/standalone/alluxioruntime.yaml",
    };
    for path in ["deploy/crd/preload.yaml", runtime] {
        let path = file(path);
        let yaml = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        kubernetes.apply(&yaml).await?;
    }
    if crds == Crds::PatchedFluid {
        patch_fluid(kubernetes).await?;
    }
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd"];
    let names = ["preloads.preload.dev", "alluxioruntimes.data.fluid.io"];
    kubernetes.kubectl(&[&wait[..], &names].concat()).await?.success()?;
    kubernetes.restrict_controllers().await
}

/// What the documentation tells users of Fluid to do.
pub async fn patch_fluid(kubernetes: &Kubernetes) -> Result<()> {
    let patch = file("deploy/crd/fluid-alluxioruntime.patch.yaml");
    let patch = patch.to_string_lossy();
    let arguments = ["patch", "crd", "alluxioruntimes.data.fluid.io", "--type=json", "--patch-file", &patch];
    kubernetes.kubectl(&arguments).await?.success().context("patch Fluid's CRD").map(drop)
}

/// The shared Kubernetes with Fluid's patched CRD.
pub async fn shared_fluid() -> Result<&'static Kubernetes> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let kubernetes = shared_kubernetes().await?;
    INSTALLED
        .get_or_try_init(async || {
            install(kubernetes, Crds::PatchedFluid).await?;
            // Its garbage collector would learn of the new kinds only within 40 s.
            kubernetes.kill(Part::ControllerManager, Signal::SIGKILL).await?;
            kubernetes.start_part(Part::ControllerManager).await
        })
        .await?;
    Ok(kubernetes)
}
