//! A Java run time for images: the modules that Alluxio needs of this machine's JDK, made once by jlink.

use crate::prerequisites;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Alluxio, Hadoop, gRPC and log4j load.
const MODULES: &str = "java.se,jdk.crypto.ec,jdk.management,jdk.naming.dns,jdk.net,jdk.security.auth,\
                       jdk.security.jgss,jdk.unsupported";

/// Libraries of java.desktop: they need a dozen more of the system, and nobody here draws or plays.
const UNWANTED: [&str; 9] = [
    "libawt",
    "libfontmanager",
    "libfreetype",
    "libjavajpeg",
    "libjawt",
    "libjsound",
    "liblcms",
    "libmlib_image",
    "libsplashscreen",
];

fn home() -> Result<PathBuf> {
    let java = fs::canonicalize(prerequisites::java()?).context("find the JDK")?;
    Ok(java.parent().and_then(Path::parent).context("java is in no JDK")?.to_owned())
}

/// Says which JDK this is.
pub(super) fn release() -> Result<String> {
    let path = home()?.join("release");
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The run time's folder; made if it is not there. Only for who holds the lock of the cache.
pub(super) fn made() -> Result<PathBuf> {
    let key = super::image::sha256(&format!("{} {}", include_str!("jre.rs"), release()?));
    let folder = prerequisites::cache()?.join(format!("jre-{:.16}", key));
    if folder.is_dir() {
        return Ok(folder);
    }
    let jlink = home()?.join("bin/jlink");
    if !jlink.is_file() {
        bail!("{} is missing: run 'make prerequisites'", jlink.display());
    }
    let temporary = prerequisites::cache()?.join(".tmp.jre");
    let _ = fs::remove_dir_all(&temporary);
    let mut command = Command::new(jlink);
    command.args(["--add-modules", MODULES, "--strip-debug", "--no-man-pages", "--no-header-files"]);
    run(command.arg("--output").arg(&temporary))?;
    for entry in fs::read_dir(temporary.join("lib")).context("read the run time")?.flatten() {
        if UNWANTED.iter().any(|prefix| entry.file_name().to_string_lossy().starts_with(prefix)) {
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    // Classes that every start would parse again.
    run(Command::new(temporary.join("bin/java")).arg("-Xshare:dump"))?;
    fs::rename(&temporary, &folder).context("keep the run time")?;
    Ok(folder)
}

/// Shared libraries of this machine that the run time needs, and the C library's loader.
pub(super) fn libraries() -> Result<BTreeSet<PathBuf>> {
    let folder = made()?;
    let mut programs = vec![folder.join("bin/java")];
    for folder in [folder.join("lib"), folder.join("lib/server")] {
        let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let files = entries.flatten().map(|entry| entry.path());
        programs.extend(files.filter(|path| path.extension() == Some(OsStr::new("so"))));
    }
    let said = run(Command::new("ldd").args(&programs))?;
    // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)"
    let paths = said.lines().filter(|line| line.starts_with('\t'));
    let paths = paths.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).filter(|path| !path.starts_with(&folder)).collect())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
