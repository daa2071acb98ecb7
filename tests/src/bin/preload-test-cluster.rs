//! A two-worker Alluxio to play with: says where it is, and lasts until this process ends, in whatever way.

use anyhow::Result;
use preload_tests::{Cluster, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    println!("directory: {}", cluster.sandbox().directory().display());
    println!("under file system: {}", cluster.ufs().display());
    println!("command line: {}", cluster.launcher().display());
    println!("master: {}", cluster.master_address());
    println!("job master: {}", cluster.job_master_address());
    println!("web: http://{}", cluster.web_address());
    let host = cluster.sandbox().address(200);
    println!("a sidecar for it:");
    println!(
        "  target/debug/preload-sidecar serve --listen {host}:29700 --admin-listen {host}:29701 \\\n    \
         --state-dir {}/state --alluxio {} --alluxio-master {} --alluxio-job-master {}",
        cluster.sandbox().directory().display(),
        cluster.launcher().display(),
        cluster.master_address(),
        cluster.job_master_address()
    );
    println!("and then: target/debug/preloadctl --address {host}:29700 start / --watch");
    println!("ends with Ctrl-C");
    std::future::pending().await
}
