//! `preload-sidecar install DIR`: puts this executable where the sidecar's container finds it.
//!
//! The image of the sidecar's container is the master's own, which has no preload-sidecar; an init container
//! with our image copies it into a volume that both mount.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Name of what is installed.
const NAME: &str = "preload-sidecar";
/// Anybody may run it: the master's image says as which user.
const MODE: u32 = 0o755;

/// Nothing was installed; what was there before still is. The operator corrects the volume.
#[derive(Debug, Error)]
#[error("cannot install {}: {problem}", target.display())]
pub struct InstallError {
    target: PathBuf,
    problem: String,
    source: io::Error,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub target: PathBuf,
    pub bytes: u64,
}

/// Makes `directory/preload-sidecar` a copy of this executable: whole or not at all, however often.
pub fn install(directory: &Path) -> Result<Installed, InstallError> {
    copy(Path::new("/proc/self/exe"), directory)
}

fn copy(executable: &Path, directory: &Path) -> Result<Installed, InstallError> {
    let target = directory.join(NAME);
    // The same in every run, so that what a killed one left is replaced.
    let temporary = directory.join(format!(".{NAME}.new"));
    let failed = |problem: &str| {
        let (target, problem) = (target.clone(), problem.to_owned());
        move |source| InstallError { target, problem, source }
    };
    fs::create_dir_all(directory).map_err(failed("its directory cannot be made"))?;
    let written = (|| {
        let mut from = File::open(executable).map_err(failed("this executable cannot be read"))?;
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&temporary)
            .map_err(failed("its directory cannot be written to"))?;
        let bytes = io::copy(&mut from, &mut to).map_err(failed("writing failed"))?;
        // Whatever the umask is.
        to.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed("its mode cannot be set"))?;
        to.sync_all().map_err(failed("writing failed"))?;
        drop(to);
        fs::rename(&temporary, &target).map_err(failed("it cannot take its place"))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("writing failed"))?;
        Ok(Installed { target: target.clone(), bytes })
    })();
    if written.is_err() {
        // A full volume gets its room back; an error: it is not there.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        fs::write(&first, "one").unwrap();
        fs::write(&second, "twice").unwrap();
        let bin = folder.path().join("a/bin");
        for (executable, bytes) in [(&first, 3), (&second, 5), (&second, 5)] {
            assert_eq!(copy(executable, &bin).unwrap(), Installed { target: bin.join(NAME), bytes });
        }
        let error = copy(&folder.path().join("missing"), &bin).unwrap_err().to_string();
        assert!(error.contains("this executable cannot be read"), "{error}");
        assert_eq!(fs::read_to_string(bin.join(NAME)).unwrap(), "twice");
        assert_eq!(fs::metadata(bin.join(NAME)).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn an_error_says_what_cannot_be_done() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = copy(&file, &file).unwrap_err().to_string();
        assert!(error.contains("file/preload-sidecar: its directory cannot be made"), "{error}");
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join(NAME)).unwrap();
        let error = copy(&file, &taken).unwrap_err().to_string();
        assert!(error.contains("it cannot take its place"), "{error}");
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 1, "nothing half done is left");
    }
}
