//! Where `tests/prerequisites` put what the tests need. Never fetches anything.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// The last Alluxio with `alluxio fs distributedLoad`.
pub const ALLUXIO: &str = "2.9.3";
/// The last Alluxio 2: no distributedLoad.
pub const ALLUXIO_WITHOUT_DISTRIBUTED_LOAD: &str = "2.9.6";
/// Also in `tests/prerequisites`, which builds it.
const GRPCURL: &str = "1.9.3";
/// Also in `tests/prerequisites`, which builds it, and in `kubernetes/go.mod`.
pub const KUBERNETES: &str = "1.36.3";

fn cache() -> Result<PathBuf> {
    let folder = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(folder.join("alluxio-preload"))
}

/// Java class path of Alluxio, in a stable order.
pub fn class_path(version: &str) -> Result<OsString> {
    let folder = cache()?.join(format!("alluxio-{version}")).join("lib");
    let Ok(entries) = fs::read_dir(&folder) else {
        bail!("{} is missing: run 'make prerequisites'", folder.display());
    };
    let mut jars: Vec<_> = entries.flatten().map(|entry| entry.path().into_os_string()).collect();
    jars.sort();
    Ok(jars.join(&OsString::from(":")))
}

/// The grpcurl binary.
pub fn grpcurl() -> Result<PathBuf> {
    built("grpcurl", GRPCURL)
}

/// The binary that is any part of Kubernetes, as its first argument says.
pub fn kubernetes() -> Result<PathBuf> {
    built("kubernetes", &format!("{KUBERNETES}-nodes"))
}

fn built(name: &str, version: &str) -> Result<PathBuf> {
    let path = cache()?.join(format!("{name}-{version}")).join(name);
    if !path.is_file() {
        bail!("{} is missing: run 'make prerequisites'", path.display());
    }
    Ok(path)
}

/// The JVM: `$JAVA_HOME/bin/java`, else from PATH.
pub fn java() -> Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = home.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("java")));
    candidates.into_iter().find(|java| java.is_file()).context("java is missing: run 'make prerequisites'")
}
