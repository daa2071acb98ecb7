//! A Secret as a kubelet mounts it: names that are links through `..data`, which is exchanged to change all of
//! them at once. An optional Secret that does not exist is an empty directory.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::certificates::Identity;
use crate::sandbox::Sandbox;

#[derive(Debug)]
pub struct Secret {
    directory: PathBuf,
}

impl Secret {
    /// Mounted and not there yet.
    pub fn new(sandbox: &Sandbox) -> Result<Self> {
        Ok(Self { directory: sandbox.folder("secret")? })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// These are all its keys from now on.
    pub fn put(&self, keys: &[(&str, &[u8])]) -> Result<()> {
        let data = self.directory.join("..data");
        let before = fs::read_link(&data).ok();
        let generation = format!("..{}", uuid::Uuid::new_v4());
        let folder = self.directory.join(&generation);
        fs::create_dir(&folder).context("make a generation")?;
        for (name, content) in keys {
            fs::write(folder.join(name), content).context("write a key")?;
        }
        let fresh = self.directory.join("..data_tmp");
        symlink(&generation, &fresh).context("link a generation")?;
        fs::rename(&fresh, &data).context("exchange the generations")?;
        for (name, _) in keys {
            let link = self.directory.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).context("link a key")?;
            }
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !keys.iter().any(|(key, _)| *key == name) {
                fs::remove_file(entry.path()).context("remove a key")?;
            }
        }
        before.map_or(Ok(()), |before| fs::remove_dir_all(self.directory.join(before))).context("clean up")
    }

    /// What lets the holder of a token in.
    pub fn put_token(&self, identity: &Identity, tokens: &str) -> Result<()> {
        let (certificate, key) = (fs::read(&identity.certificate)?, fs::read(&identity.key)?);
        self.put(&[("tls.crt", &certificate), ("tls.key", &key), ("tokens", tokens.as_bytes())])
    }
}
