//! What goes into images runs in any of them: without a libc, with musl's, and with a glibc that is not the one of
//! the machine that built it, names of the cluster's DNS included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64, PT_DYNAMIC, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use preload_tests::dns::NameServer;
use preload_tests::{Exit, Leash, Sandbox, http, leash, prerequisites, wait};
use tokio::net::TcpListener;

const PROGRAMS: [&str; 3] = ["preload-sidecar", "preload-controller", "preloadctl"];
const MASTER: &str = "master.preload.test";

/// Names of the interpreter and libraries that the kernel or the loader would look for.
fn needs(file: &Path) -> Result<Vec<String>> {
    let data = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let header = FileHeader64::<LittleEndian>::parse(&*data)?;
    let mut needs = Vec::new();
    for segment in header.program_headers(LittleEndian, &*data)? {
        if segment.p_type(LittleEndian) == PT_INTERP {
            needs.push("an interpreter".to_owned());
        }
        if segment.p_type(LittleEndian) == PT_DYNAMIC {
            let dynamic = segment.dynamic(LittleEndian, &*data)?.context("no dynamic section")?;
            let libraries = dynamic.iter().filter(|entry| entry.tag(LittleEndian) == DT_NEEDED);
            needs.extend(libraries.map(|_| "a library".to_owned()));
        }
    }
    Ok(needs)
}

#[test]
fn nothing_is_linked_at_the_start() -> Result<()> {
    for program in PROGRAMS {
        assert_eq!(needs(&prerequisites::static_binary(program)?)?, Vec::<String>::new(), "{program}");
    }
    let dynamic = needs(&leash::sibling("preload-sidecar")?)?;
    assert!(dynamic.len() > 1, "the same look at a dynamic one finds {dynamic:?}");
    Ok(())
}

/// A root with the programs, a resolver's configuration and a place for state, and what `furnish` adds.
fn root(sandbox: &Sandbox, server: &str, furnish: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = sandbox.folder("root")?;
    for program in PROGRAMS {
        fs::copy(prerequisites::static_binary(program)?, root.join(program))?;
    }
    fs::create_dir_all(root.join("state"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/resolv.conf"), format!("nameserver {server}\noptions ndots:5\nsearch test\n"))?;
    furnish(&root)?;
    Ok(root)
}

async fn runs_in(sandbox: &Sandbox, furnish: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let server = sandbox.address(53);
    let root = root(sandbox, &server, furnish)?;
    let host = sandbox.address(200);
    let _dns = NameServer::start(&server, MASTER, host.parse()?).await?;
    let within = |program: &str| {
        let mut command = Command::new("chroot");
        command.arg(&root).arg(format!("/{program}")).env("RUST_BACKTRACE", "1");
        command
    };
    for program in PROGRAMS {
        let mut command = within(program);
        command.arg("--version");
        let said = sandbox.run(&command, wait::LIMIT).await?.success()?;
        assert!(said.contains(program), "{program}: {said}");
    }

    // The sidecar finds its master by name: somebody connects where that name leads to.
    let master = TcpListener::bind((host.as_str(), 0)).await?;
    let port = master.local_addr()?.port();
    let (listen, admin) = (sandbox.free_address(), sandbox.free_address());
    let mut command = within("preload-sidecar");
    command.args(["serve", "--state-dir", "/state", "--listen", &listen, "--admin-listen", &admin]);
    command.args(["--alluxio-master", &format!("{MASTER}:{port}"), "--alluxio-user", "nobody"]);
    let log = root.join("log");
    let sidecar = Leash::start(&command, &log, &log)?;
    let ready = wait::until("the sidecar to be ready", wait::LIMIT, async || {
        let (status, body) = http::get(&admin, "/readyz").await?;
        ensure!(status == 200, "{body}");
        Ok(Some(()))
    });
    ready.await.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let address = format!("{MASTER}:{}", listen.rsplit(':').next().context("no port")?);
    let mut command = within("preloadctl");
    command.args(["--address", &address, "start", "/a", "--id", "a"]);
    sandbox.run(&command, wait::LIMIT).await?.success().context("preloadctl start")?;
    let called = tokio::time::timeout(wait::LIMIT, master.accept()).await;
    called.context("the sidecar never called its master")??;

    let mut unknown = within("preloadctl");
    unknown.args(["--address", "other.preload.test:1", "list"]);
    let output = sandbox.run(&unknown, wait::LIMIT).await?;
    assert_eq!(output.exit, Exit::Code(3), "{output:?}");
    sidecar.signal(nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(sidecar.exited(wait::LIMIT).await?, Exit::Code(0), "{}", fs::read_to_string(&log)?);
    Ok(())
}

#[tokio::test]
async fn without_a_libc() -> Result<()> {
    let sandbox = Sandbox::new()?;
    runs_in(&sandbox, |_| Ok(())).await
}

#[tokio::test]
async fn with_the_libc_of_musl() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let loader = format!("ld-musl-{}.so.1", std::env::consts::ARCH);
    let libc = Path::new("/lib").join(&loader);
    runs_in(&sandbox, |root| {
        fs::create_dir_all(root.join("lib"))?;
        let copied = fs::copy(&libc, root.join("lib").join(&loader));
        copied.context("musl's libc is missing: run 'apt-get install musl'").map(drop)
    })
    .await
}

/// Modules that its configuration names and that are not there, and libraries that no loader could load: what is
/// left of a glibc that was asked would fail at once.
#[tokio::test]
async fn with_an_alien_glibc() -> Result<()> {
    let sandbox = Sandbox::new()?;
    runs_in(&sandbox, |root| {
        let nss = "passwd: sss systemd\nhosts: mymachines resolve [!UNAVAIL=return] wins dns\n";
        fs::write(root.join("etc/nsswitch.conf"), nss)?;
        for folder in ["lib", "lib64", "lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.join(folder))?;
            for library in ["ld-linux-x86-64.so.2", "libc.so.6", "libnss_dns.so.2", "libnss_resolve.so.2"] {
                fs::write(root.join(folder).join(library), "of another time\n")?;
            }
        }
        Ok(())
    })
    .await
}
