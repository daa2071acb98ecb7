//! TCP connections from one network to another: we listen in the first and connect in the second.

use super::say;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};

/// Our own network, unless we have entered another.
const OWN: &str = "self";

pub(super) fn forward(arguments: &[OsString]) -> Result<()> {
    let [from, address, to, target] = arguments else {
        bail!("forward needs MACHINE ADDRESS MACHINE ADDRESS")
    };
    let (address, target) = (address.to_str().context("UTF-8")?, target.to_str().context("UTF-8")?);
    let (from, to) = (network(from)?, network(to)?);
    // A socket stays in the network where it was made, and this is our only thread.
    setns(from, CloneFlags::CLONE_NEWNET).context("enter the first network")?;
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true).context("listen without blocking")?;
    setns(to, CloneFlags::CLONE_NEWNET).context("enter the second network")?;
    say(&format!("listening {}", listener.local_addr().context("where we listen")?))?;
    std::thread::spawn(|| {
        // Either way the test process is done with us.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("a runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).context("listen")?;
        loop {
            let (client, _) = listener.accept().await.context("accept a connection")?;
            tokio::spawn(connect(client, target.to_owned()));
        }
    })
}

fn network(machine: &OsStr) -> Result<File> {
    let machine = if machine == "-" { OsStr::new(OWN) } else { machine };
    let path = Path::new("/proc").join(machine).join("ns/net");
    File::open(&path).with_context(|| format!("open {}", path.display()))
}

/// An error of either side ends both, as a broken network does.
async fn connect(mut client: TcpStream, target: String) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
