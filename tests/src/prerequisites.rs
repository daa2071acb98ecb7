//! Where `tests/prerequisites` put what the tests need. Never fetches anything.

use crate::leash;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The last Alluxio with `alluxio fs distributedLoad`.
pub const ALLUXIO: &str = "2.9.3";
/// The last Alluxio 2: no distributedLoad.
pub const ALLUXIO_WITHOUT_DISTRIBUTED_LOAD: &str = "2.9.6";
/// Also in `tests/prerequisites`, which builds it.
const GRPCURL: &str = "1.9.3";
/// Also in `tests/prerequisites`, which builds it when it is asked for it.
const GHZ: &str = "0.121.0";
/// Also in `tests/prerequisites`, which builds it, and in `kubernetes/go.mod`.
pub const KUBERNETES: &str = "1.36.3";
/// Also in `tests/prerequisites`, which builds it, and in `dns/go.mod`.
const DNS: &str = "1.15.0";
/// Where Debian puts the plugins of the container network.
pub const CNI: &str = "/usr/lib/cni";

/// Where everything is kept that is made once.
pub(crate) fn cache() -> Result<PathBuf> {
    let folder = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(folder.join("alluxio-preload"))
}

/// The folder of Alluxio's jars.
pub fn jars(version: &str) -> Result<PathBuf> {
    Ok(cache()?.join(format!("alluxio-{version}")).join("lib"))
}

/// Java class path of Alluxio, in a stable order.
pub fn class_path(version: &str) -> Result<OsString> {
    let folder = jars(version)?;
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

/// The load generator of the benchmark of calls.
pub fn ghz() -> Result<PathBuf> {
    built("ghz", GHZ).context("it is built by tests/prerequisites ghz")
}

/// The binary that is any part of Kubernetes, as its first argument says.
pub fn kubernetes() -> Result<PathBuf> {
    built("kubernetes", &format!("{KUBERNETES}-nodes"))
}

/// kubectl by itself, which starts sooner than as a part of that.
pub fn kubectl() -> Result<PathBuf> {
    built("kubectl", KUBERNETES)
}

/// CoreDNS.
pub fn dns() -> Result<PathBuf> {
    built("dns", DNS)
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

/// A program of the system: what nodes need, Debian keeps partly in folders that a PATH may lack.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path).chain(system).map(|folder| folder.join(name));
    candidates
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is missing: run 'make prerequisites'"))
}

/// The static busybox.
pub fn busybox() -> Result<PathBuf> {
    program("busybox")
}

/// A binary of ours that runs in any image, as old as its sources or younger.
pub fn static_binary(name: &str) -> Result<PathBuf> {
    let own = leash::sibling(leash::PROGRAM)?;
    let target = own.ancestors().nth(2).context("our executable is in no target folder")?;
    let path = target.join("x86_64-unknown-linux-musl/debug").join(name);
    let made =
        modified(&path).with_context(|| format!("{} is missing: run 'make static'", path.display()))?;
    // "PATH: SOURCE SOURCE ...", as cargo writes it.
    let sources =
        fs::read_to_string(path.with_extension("d")).context("read which sources it is made from")?;
    let sources = sources.split_once(": ").map_or("", |(_, sources)| sources);
    if let Some(newer) =
        sources.split_whitespace().find(|source| modified(source).is_ok_and(|time| time > made))
    {
        bail!("{} is older than {newer}: run 'make static'", path.display());
    }
    Ok(path)
}

fn modified(path: impl AsRef<Path>) -> Result<SystemTime> {
    Ok(fs::metadata(path)?.modified()?)
}
