//! The cluster's `bin/alluxio`: a shell script that does what Alluxio's own launcher does for the commands
//! that a sidecar needs, and becomes the JVM.

use crate::prerequisites;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Writes the script; it honours ALLUXIO_LOGS_DIR, ALLUXIO_JAVA_OPTS and ALLUXIO_USER_JAVA_OPTS, as the real one does.
pub(super) fn write(sandbox: &Sandbox, version: &str) -> Result<PathBuf> {
    let directory = sandbox.directory();
    // The class path is long; in a file it does not clutter every process list.
    let class_path = directory.join("conf/class-path");
    fs::write(&class_path, prerequisites::class_path(version)?.as_encoded_bytes())
        .context("write the class path")?;
    let script = format!(
        r#"#!/bin/sh
case "$1" in
  fs) main=alluxio.cli.fs.FileSystemShell ;;
  fsadmin) main=alluxio.cli.fsadmin.FileSystemAdminShell ;;
  job) main=alluxio.cli.job.JobShell ;;
  getConf) main=alluxio.cli.GetConf ;;
  *) echo "usage: alluxio fs|fsadmin|job|getConf ARGUMENT..." >&2; exit 1 ;;
esac
shift
# shellcheck disable=SC2086 # options are split on purpose
exec '{java}' -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -cp "$(cat '{class_path}')" \
  -Dpreload.role=shell -Dlog4j.configuration='file:{directory}/conf/log4j-shell.properties' \
  -Dalluxio.conf.dir='{directory}/conf' -Dalluxio.site.conf.dir='{directory}/conf/' \
  -Dalluxio.logs.dir="${{ALLUXIO_LOGS_DIR:-{directory}/logs}}" $ALLUXIO_JAVA_OPTS $ALLUXIO_USER_JAVA_OPTS "$main" "$@"
"#,
        java = prerequisites::java()?.display(),
        class_path = class_path.display(),
        directory = directory.display(),
    );
    let path = directory.join("bin/alluxio");
    fs::write(&path, script).context("write the launcher")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("make the launcher executable")?;
    Ok(path)
}
