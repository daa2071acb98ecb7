//! An overlay of `deploy/` on real nodes, as a user installs it: by a kustomization of his own that says where the
//! image and the data are.
//!
//! Invariant: what is applied is the overlay as it is shipped, but for the image's tag, the directory of the under
//! file system, and [`super::alluxio`]'s quick start.

use super::alluxio::{self, AlluxioPods};
use super::{Nodes, catalogue};
use crate::sandbox::Output;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the controller is.
pub const SYSTEM: &str = "preload-system";
/// What all objects of ours, but those of the example, are labelled with.
pub const NAME: &str = "app.kubernetes.io/name=alluxio-preload";
/// Images may be there by tag alone: each of these is the one that `make static` has built.
const IMAGE: &str = "alluxio-preload";

/// See the module. It stays when this is dropped: it goes with the nodes, or by [`Installation::delete`].
#[derive(Debug)]
pub struct Installation<'a> {
    nodes: &'a Nodes,
    kustomization: PathBuf,
    ufs: PathBuf,
}

impl<'a> Installation<'a> {
    /// `kubectl apply -k` of `deploy/overlays/standalone`; waits for nothing.
    pub async fn standalone(nodes: &'a Nodes) -> Result<Self> {
        let folder = nodes.kubernetes().sandbox().folder("installation")?;
        let ufs = nodes.kubernetes().sandbox().directory().join("ufs");
        fs::create_dir_all(&ufs).context("make the under file system")?;
        let installation = Self { nodes, kustomization: folder, ufs };
        installation.write(env!("CARGO_PKG_VERSION"))?;
        installation.apply().await?.success().context("kubectl apply -k")?;
        Ok(installation)
    }

    /// Names `tag` from the next [`Self::apply`] on.
    pub fn write(&self, tag: &str) -> Result<()> {
        let (_, shipped) = catalogue::PRELOAD.split_once(':').context("a tag")?;
        let tag = if tag == env!("CARGO_PKG_VERSION") { shipped } else { tag };
        let config = alluxio::manifest("alluxio-config.yaml")?;
        let config: serde_json::Value =
            serde_saphyr::from_str(&alluxio::replaced(&config, alluxio::PROPERTY, alluxio::QUICK)?)?;
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [self.relative("deploy/overlays/standalone")?],
            "images": [{ "name": IMAGE, "newTag": tag }],
            "patches": [
                {
                    "target": { "kind": "PersistentVolume", "name": "alluxio-ufs" },
                    "patch": json!([{ "op": "replace", "path": "/spec/hostPath/path", "value": self.ufs }])
                        .to_string(),
                },
                {
                    "target": { "kind": "ConfigMap", "name": "alluxio-config" },
                    "patch": json!([{ "op": "replace", "path": "/data", "value": config["data"] }]).to_string(),
                },
            ],
        });
        let path = self.kustomization.join("kustomization.yaml");
        fs::write(path, kustomization.to_string()).context("write the kustomization")
    }

    /// Kustomize takes relative paths alone.
    fn relative(&self, path: &str) -> Result<String> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let target = fs::canonicalize(&target).with_context(|| format!("find {}", target.display()))?;
        let own = fs::canonicalize(&self.kustomization)?;
        let up = "../".repeat(own.components().count() - 1);
        Ok(format!("{up}{}", target.to_string_lossy().trim_start_matches('/')))
    }

    /// `kubectl apply -k` once more.
    pub async fn apply(&self) -> Result<Output> {
        let folder = self.kustomization.to_string_lossy().into_owned();
        self.nodes.kubernetes().kubectl(&["apply", "--server-side", "--validate=strict", "-k", &folder]).await
    }

    /// The same for the controller and what belongs to it: the example of Alluxio stays as it is.
    pub async fn apply_controller(&self) -> Result<Output> {
        let folder = self.kustomization.to_string_lossy().into_owned();
        let apply = ["apply", "--server-side", "--validate=strict", "-k", &folder, "--selector", NAME];
        self.nodes.kubernetes().kubectl(&apply).await
    }

    /// `kubectl delete -k`, which waits until all is gone.
    pub async fn delete(&self) -> Result<Output> {
        let folder = self.kustomization.to_string_lossy().into_owned();
        self.nodes.kubernetes().kubectl(&["delete", "--timeout=100s", "-k", &folder]).await
    }

    /// Waits until both replicas of the controller are Ready.
    pub async fn controller_ready(&self) -> Result<()> {
        let rollout = ["rollout", "status", "--timeout=100s", "-n", SYSTEM, "deployment/preload-controller"];
        let rolled = self.nodes.kubernetes().kubectl(&rollout).await?;
        ensure!(rolled.exit.success(), "{}\n{}", rolled.stderr, self.controller_log().await);
        Ok(())
    }

    /// What the replicas of the controller say, and what happened to them.
    pub async fn controller_log(&self) -> String {
        let mut text = String::new();
        let logs = ["logs", "--selector", "app.kubernetes.io/component=controller", "--prefix", "--tail=40"];
        for arguments in [&["get", "pods", "-o", "wide"][..], &["events"], &logs] {
            if let Ok(output) = self.nodes.kubernetes().kubectl(&[arguments, &["-n", SYSTEM]].concat()).await
            {
                text.push_str(&format!("{}{}\n", output.stdout, output.stderr));
            }
        }
        text
    }

    /// The Alluxio of the overlay.
    pub fn alluxio(&self) -> AlluxioPods<'a> {
        AlluxioPods::applied(self.nodes, self.ufs.clone())
    }

    /// A manifest of the overlay by itself, such as `alluxio-master.yaml`, but for these replacements of text.
    pub async fn apply_file(&self, name: &str, replacements: &[(&str, &str)]) -> Result<()> {
        let file = alluxio::manifest(name)?;
        let file = replacements.iter().try_fold(file, |yaml, (old, new)| alluxio::replaced(&yaml, old, new));
        self.nodes.kubernetes().apply(&file?).await
    }

    /// The master as the overlay has it, but for these replacements of text.
    pub async fn apply_master(&self, replacements: &[(&str, &str)]) -> Result<()> {
        let (_, tag) = catalogue::PRELOAD.split_once(':').context("a tag")?;
        let shipped = format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"));
        let image = format!("{IMAGE}:{tag}");
        let replacements = [&[(&*shipped, &*image)], replacements].concat();
        self.apply_file("alluxio-master.injected.yaml", &replacements).await
    }
}
