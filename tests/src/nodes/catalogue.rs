//! The images that tests run: what is in each. Nothing comes from a registry: Alluxio's jars are those of
//! `tests/prerequisites`, the rest is of this machine.

use super::image::Image;
use super::jre;
use crate::prerequisites::{self, ALLUXIO};
use anyhow::Result;

/// Holds the namespaces of a pod.
pub const PAUSE: &str = "localhost/pause:1";
/// A shell and its tools.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";
/// Our own, with the tag of no release.
pub const PRELOAD: &str = "docker.io/library/alluxio-preload:test";
/// Whoever runs Alluxio.
const ALLUXIO_USER: u32 = 1000;
/// Whoever runs ours.
const PRELOAD_USER: u32 = 65_532;
const LAUNCHER: &str = include_str!("alluxio.sh");
const TOOLS: [&str; 40] = [
    "base64", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "env",
    "expr", "false", "find", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mv", "nc",
    "nslookup", "ps", "pwd", "rm", "sed", "sh", "sleep", "stat", "tail", "test", "touch", "true", "wc",
    "wget",
];

/// Everything that changes with neither this project nor the test.
pub(super) fn fixed() -> Result<Vec<Image>> {
    Ok(vec![pause()?, busybox()?, alluxio()?])
}

/// What [`fixed`] is made from: the same text, the same images.
pub(super) fn fixed_key() -> Result<String> {
    let sources = [include_str!("catalogue.rs"), include_str!("image.rs"), include_str!("jre.rs"), LAUNCHER];
    Ok(format!("{} {ALLUXIO} {}", sources.concat(), jre::release()?))
}

fn pause() -> Result<Image> {
    let busybox = prerequisites::busybox()?;
    Ok(Image::new(PAUSE).copy("/busybox", 0o755, &busybox).entrypoint(&["/busybox", "sleep", "infinity"]))
}

fn busybox() -> Result<Image> {
    Ok(with_tools(Image::new(BUSYBOX))?.environment("PATH", "/bin").arguments(&["sh"]))
}

fn with_tools(image: Image) -> Result<Image> {
    let image = image.copy("/bin/busybox", 0o755, &prerequisites::busybox()?);
    Ok(TOOLS.iter().fold(image, |image, tool| image.link(&format!("/bin/{tool}"), "busybox")))
}

/// Alluxio of the name and layout of its own image.
fn alluxio() -> Result<Image> {
    let image = with_tools(Image::new(&alluxio_name()))?
        .text("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nalluxio:x:1000:1000::/home/alluxio:/bin/sh\n")
        .text("/etc/group", 0o644, "root:x:0:\nalluxio:x:1000:\n")
        .text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n")
        .folder("/home/alluxio", 0o755, ALLUXIO_USER.into())
        .folder("/journal", 0o755, ALLUXIO_USER.into())
        .folder("/opt/alluxio/logs", 0o755, ALLUXIO_USER.into())
        .text("/opt/alluxio/bin/alluxio", 0o755, LAUNCHER)
        .link("/entrypoint.sh", "/opt/alluxio/bin/alluxio")
        .text("/opt/alluxio/conf/log4j.properties", 0o644, &log4j("INFO", "System.out"))
        .text("/opt/alluxio/conf/log4j-shell.properties", 0o644, &log4j("ERROR", "System.err"))
        .text("/opt/alluxio/conf/alluxio-site.properties", 0o644, "")
        .tree("/opt/alluxio/lib", &prerequisites::jars(ALLUXIO)?)?
        .tree("/opt/java", &jre::made()?)?;
    let image = jre::libraries()?
        .iter()
        .fold(image, |image, library| image.copy(&library.to_string_lossy(), 0o755, library));
    Ok(image
        .environment("PATH", "/opt/alluxio/bin:/opt/java/bin:/bin")
        .environment("JAVA_HOME", "/opt/java")
        .environment("ALLUXIO_HOME", "/opt/alluxio")
        .user(ALLUXIO_USER)
        .entrypoint(&["/entrypoint.sh"]))
}

/// What pods call it.
pub fn alluxio_name() -> String {
    format!("docker.io/alluxio/alluxio:{ALLUXIO}")
}

fn log4j(level: &str, target: &str) -> String {
    format!(
        "log4j.rootLogger={level}, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.Target={target}
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{{ISO8601}} %-5p %c{{1}} - %m%n
"
    )
}

/// Ours: three static binaries and nothing else, as it ships.
pub fn preload() -> Result<Image> {
    let image = ["preload-controller", "preload-sidecar", "preloadctl"].iter().try_fold(
        Image::new(PRELOAD),
        |image, name| {
            anyhow::Ok(image.copy(&format!("/{name}"), 0o755, &prerequisites::static_binary(name)?))
        },
    )?;
    Ok(image.user(PRELOAD_USER))
}
