//! A Secret as a pod sees it: the kubelet's part, for sidecars that run without one.
//!
//! Invariants: as in a real volume, all files change at once (`..data` is swapped), the directory is empty while
//! there is no Secret, and what was mounted stays when the Secret is deleted.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// Follows the Secret until it is dropped.
#[derive(Debug)]
pub struct SecretVolume {
    directory: PathBuf,
    task: JoinHandle<()>,
}

impl SecretVolume {
    /// `directory` is made.
    pub fn mount(client: &kube::Client, namespace: &str, name: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).context("make the mount point")?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let target = directory.to_owned();
        let task = tokio::spawn(async move {
            let mut changes = watcher(secrets, config).default_backoff().applied_objects().boxed();
            while let Some(change) = changes.next().await {
                match change {
                    Ok(secret) => {
                        if let Err(error) = publish(&target, &secret) {
                            println!("the volume {} cannot be written: {error}", target.display());
                        }
                    }
                    Err(error) => println!("the Secret of {} cannot be watched: {error}", target.display()),
                }
            }
        });
        Ok(Self { directory: directory.to_owned(), task })
    }

    /// Where it is mounted.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file of it, as of now.
    pub fn read(&self, key: &str) -> Result<String> {
        fs::read_to_string(self.directory.join(key)).with_context(|| format!("read {key} of the Secret"))
    }
}

impl Drop for SecretVolume {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn publish(directory: &Path, secret: &Secret) -> io::Result<()> {
    let version = format!("..{}", uuid::Uuid::now_v7());
    fs::create_dir(directory.join(&version))?;
    let data = secret.data.clone().unwrap_or_default();
    for (key, value) in &data {
        fs::write(directory.join(&version).join(key), &value.0)?;
    }
    let next = directory.join("..data_next");
    let _ = fs::remove_file(&next);
    symlink(&version, &next)?;
    fs::rename(&next, directory.join("..data"))?;
    for key in data.keys() {
        let visible = directory.join(key);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(key), visible)?;
        }
    }
    Ok(())
}
