//! Whatever is wrong with the sidecar: the master's pod becomes Ready, its master runs, `/readyz` of the sidecar says
//! why it does not serve, and when that is mended it loads.

use crate::scene::{MASTER, SIDECAR, Scene, loaded, play, status};
use anyhow::{Result, ensure};
use preload_tests::nodes::installation::SYSTEM;

const FILES: usize = 40;
const CREDENTIALS: &str = "        - --credentials=/preload/credentials\n";
const STATE: &str = "      - emptyDir: {}\n        name: preload-state\n";
const STATE_MOUNT: &str = "        - mountPath: /preload/state\n          name: preload-state\n";

/// What came of it: the pod is Ready although its sidecar serves nothing.
async fn stays_ready(scene: &Scene<'_>) -> Result<()> {
    let pod = scene.master().await?;
    let pod = scene.master_ready(|now| now.metadata.uid == pod.metadata.uid).await?;
    for container in [MASTER, SIDECAR] {
        let restarts = status(&pod, container)?.restart_count;
        ensure!(restarts == 0, "{container} was started again {restarts} times");
    }
    Ok(())
}

/// A master with this change, and the same without it.
async fn broken_and_mended(
    scene: &Scene<'_>,
    name: &str,
    replacement: (&str, &str),
    words: &[&str],
) -> Result<()> {
    let before = scene.master().await?.metadata.uid;
    scene.installation.apply_master(&[replacement]).await?;
    scene.master_ready(|pod| pod.metadata.uid != before).await?;
    let said = scene.readyz(503, words).await?;
    println!("{name}: {}", said.trim_end());
    scene.declare(name, FILES).await?;
    scene.preloads.until(name, |shown| shown.condition("SidecarReachable").0 == "False").await?;
    stays_ready(scene).await?;
    let broken = scene.master().await?.metadata.uid;
    scene.installation.apply().await?.success()?;
    scene.master_ready(|pod| pod.metadata.uid != broken).await?;
    scene.preloads.until(name, loaded(1)).await?;
    scene.everything_is_cached(name, FILES).await?;
    scene.done(name).await
}

#[tokio::test]
async fn without_credentials() -> Result<()> {
    play(async |scene| {
        let name = "without-credentials";
        let kubernetes = scene.nodes.kubernetes();
        let scale = ["scale", "deployment/preload-controller", "-n", SYSTEM, "--timeout=100s"];
        kubernetes.kubectl(&[&scale[..], &["--replicas=0"]].concat()).await?.success()?;
        let gone = ["wait", "--for=delete", "pods", "-n", SYSTEM, "--all", "--timeout=100s"];
        kubernetes.kubectl(&gone).await?.success()?;
        scene.kubectl(&["delete", "secret", "alluxio-master-preload"]).await?;
        scene.another_master().await?;
        let said = scene.readyz(503, &["/preload/credentials"]).await?;
        println!("{name}: {}", said.trim_end());
        stays_ready(scene).await?;
        scene.declare(name, FILES).await?;

        kubernetes.kubectl(&[&scale[..], &["--replicas=2"]].concat()).await?.success()?;
        scene.preloads.until(name, loaded(1)).await?;
        scene.everything_is_cached(name, FILES).await?;
        // No restart was needed.
        stays_ready(scene).await?;
        scene.done(name).await
    })
    .await
}

#[tokio::test]
async fn with_a_flag_that_it_does_not_know() -> Result<()> {
    play(async |scene| {
        let flag = format!("{CREDENTIALS}        - --no-such-flag\n");
        broken_and_mended(scene, "bad-flag", (CREDENTIALS, &flag), &["--no-such-flag"]).await
    })
    .await
}

/// The file system has room for nothing.
#[tokio::test]
async fn with_a_state_volume_that_is_full() -> Result<()> {
    play(async |scene| {
        let full = STATE.replace("{}", "{medium: Memory, sizeLimit: 4Ki}");
        broken_and_mended(scene, "full-state", (STATE, &full), &["/preload/state"]).await
    })
    .await
}

#[tokio::test]
async fn with_a_state_volume_that_is_read_only() -> Result<()> {
    play(async |scene| {
        let read_only = format!("{STATE_MOUNT}          readOnly: true\n");
        broken_and_mended(scene, "read-only-state", (STATE_MOUNT, &read_only), &["/preload/state"]).await
    })
    .await
}
