//! Told to stay up, the sidecar outlives whatever is wrong, says what it is, and heals where it can: a container
//! that is down takes the master's pod with it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use alluxio_preload_api::v1::ListLoadsRequest;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preload_tests::{
    Authority, Exit, Leash, Sandbox, Setup, Sidecar, SmallDisk, http, leash, load, processes, wait,
};
use tokio::net::TcpListener;

use crate::credentials::{client, says};
use crate::disk::assert_unusable;

/// A container gets thirty seconds; nothing here needs any.
const PROMPT: Duration = Duration::from_secs(10);

async fn ends_promptly(mut sidecar: Sidecar<'_>) -> Result<()> {
    let begun = Instant::now();
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    Ok(())
}

async fn is_alive(sidecar: &Sidecar<'_>) -> Result<()> {
    let (status, body) = http::get(sidecar.admin_address(), "/livez").await?;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    Ok(())
}

#[tokio::test]
async fn arguments_that_cannot_be_used_are_explained() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let setup = || Setup::alone(&sandbox).stay_up();
    for (setup, said) in [
        (setup().argument("--nonsense"), "--nonsense"),
        (setup().argument("--max-running=none"), "--max-running"),
        (setup().environment("PRELOAD_RETENTION", "for ever"), "--retention"),
        (setup().argument("--log=a=b=c"), "--log"),
        (setup().listen("0.0.0.0:0"), "--allow-insecure"),
        (setup().argument("--tls-cert=c"), "--tls-key"),
    ] {
        let sidecar = setup.spawn()?;
        let body = says(&sidecar, 503, &["arguments or environment", said]).await?;
        assert!(!body.contains("Usage"), "{body}");
        is_alive(&sidecar).await?;
        assert_eq!(sidecar.log().matches("nothing is served").count(), 1, "{}", sidecar.log());
        ends_promptly(sidecar).await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_being_told_it_ends() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let taken = sandbox.free_address();
    let _taken = TcpListener::bind(&taken).await?;
    let garbage = sandbox.directory().join("garbage");
    fs::write(&garbage, "not PEM")?;
    for (arguments, code, said) in [
        (vec!["--listen".to_owned(), taken.clone()], 1, taken.as_str()),
        (vec!["--admin-listen".to_owned(), taken.clone()], 1, taken.as_str()),
        (
            vec![format!("--tls-cert={}", garbage.display()), format!("--tls-key={}", garbage.display())],
            1,
            "garbage",
        ),
        (vec!["--nonsense".to_owned()], 2, "--nonsense"),
    ] {
        let mut command = Command::new(leash::sibling("preload-sidecar")?);
        command.arg("serve").arg("--state-dir").arg(sandbox.directory().join("state")).args(&arguments);
        let output = sandbox.run(&command, wait::LIMIT).await?;
        assert_eq!(output.exit, Exit::Code(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_waited_for() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let taken = sandbox.free_address();
    let other = TcpListener::bind(&taken).await?;
    let mut sidecar = Setup::alone(&sandbox).stay_up().listen(&taken).spawn()?;
    says(&sidecar, 503, &["cannot listen on --listen", &taken, "in use"]).await?;
    is_alive(&sidecar).await?;
    drop(other);
    sidecar.ready().await?;
    sidecar.start_load(load("a", "/a", 1)).await?;
    assert_eq!(sidecar.log().matches("cannot listen").count(), 1, "said once");
    ends_promptly(sidecar).await
}

#[tokio::test]
async fn an_admin_port_in_use_keeps_no_load_from_being_served() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let taken = sandbox.free_address();
    let other = TcpListener::bind(&taken).await?;
    let mut sidecar = Setup::alone(&sandbox).stay_up().admin_listen(&taken).spawn()?;
    wait::until("a load to be accepted", wait::LIMIT, async || {
        sidecar.start_load(load("a", "/a", 1)).await.map(Some)
    })
    .await?;
    drop(other);
    sidecar.ready().await?;
    ends_promptly(sidecar).await
}

#[tokio::test]
async fn a_socket_without_its_directory_is_waited_for() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let folder = sandbox.directory().join("later");
    let socket = folder.join("s.sock");
    let mut sidecar = Setup::alone(&sandbox).stay_up().argument("--unix-socket").argument(&socket).spawn()?;
    says(&sidecar, 503, &["--unix-socket", &socket.display().to_string()]).await?;
    is_alive(&sidecar).await?;
    fs::create_dir(&folder)?;
    sidecar.ready().await?;
    assert!(socket.exists());
    ends_promptly(sidecar).await
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_waited_for() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let authority = Authority::new(&sandbox.folder("tls")?)?;
    let server = authority.identity(&["localhost"])?;
    let good = fs::read(&server.certificate)?;
    fs::write(&server.certificate, "not PEM")?;
    let token = sandbox.directory().join("token");
    let mut sidecar =
        Setup::alone(&sandbox).stay_up().tls(&server).argument("--token-file").argument(&token).spawn()?;
    says(&sidecar, 503, &[&token.display().to_string(), "missing"]).await?;
    fs::write(&token, "token")?;
    says(&sidecar, 503, &[&server.certificate.display().to_string(), "no certificate in PEM"]).await?;
    is_alive(&sidecar).await?;
    fs::write(&server.certificate, good)?;
    sidecar.ready().await?;
    client(&sidecar, &authority, None, Some("token"))?.list_loads(ListLoadsRequest::default()).await?;
    ends_promptly(sidecar).await
}

#[test]
fn a_state_directory_in_trouble_is_waited_for() -> Result<()> {
    SmallDisk::run(async |sandbox, disk| {
        let state = disk.path().join("state");
        disk.fill()?;
        let mut sidecar = Setup::alone(sandbox).stay_up().state_directory(&state).spawn()?;
        assert_unusable(&sidecar, &[&state.to_string_lossy(), "make room"]).await?;
        disk.make_room()?;
        disk.read_only(true)?;
        says(&sidecar, 503, &["read-only"]).await?;
        is_alive(&sidecar).await?;
        disk.read_only(false)?;
        sidecar.ready().await?;
        let acknowledged = sidecar.start_load(load("a", "/a", 1)).await?;
        ends_promptly(sidecar).await?;

        // Damaged: served again when it is moved aside.
        let file = state.join("loads.sqlite3");
        let good = fs::read(&file)?;
        fs::write(&file, &good[..good.len() / 2])?;
        let mut sidecar = Setup::alone(sandbox).stay_up().state_directory(&state).spawn()?;
        assert_unusable(&sidecar, &[&file.to_string_lossy(), "damaged"]).await?;
        fs::write(&file, &good)?;
        sidecar.ready().await?;
        assert_eq!(sidecar.get_load("a").await?.uid, acknowledged.uid);
        ends_promptly(sidecar).await
    })
}

/// The first process of a pid namespace gets no signal that it does not handle.
#[tokio::test]
async fn as_the_first_process_of_its_container_it_ends_on_sigterm() -> Result<()> {
    let sandbox = Sandbox::new()?;
    for argument in ["--log=info", "--nonsense"] {
        let (admin, log) = (sandbox.free_address(), sandbox.folder("log")?.join("log"));
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(leash::sibling("preload-sidecar")?);
        command.args(["serve", argument, "--admin-listen", &admin, "--listen", &sandbox.free_address()]);
        command.arg("--state-dir").arg(sandbox.directory().join("state")).env("PRELOAD_STAY_UP", "true");
        let unshare = Leash::start(&command, &log, &log)?;
        wait::until("it to be alive", wait::LIMIT, async || {
            Ok((http::get(&admin, "/livez").await?.0 == 200).then_some(()))
        })
        .await?;
        let first = processes::descendants(unshare.pid()).into_iter().next().context("no process")?;
        let begun = Instant::now();
        kill(Pid::from_raw(first.pid.cast_signed()), Signal::SIGTERM)?;
        let exit = unshare.exited(wait::LIMIT).await?;
        assert_eq!(exit, Exit::Code(0), "{}", fs::read_to_string(&log)?);
        assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn it_installs_itself() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let bin = sandbox.directory().join("bin");
    let mut command = Command::new(leash::sibling("preload-sidecar")?);
    command.arg("install").arg(&bin).env("PRELOAD_STAY_UP", "true");
    for _ in 0..2 {
        let said = sandbox.run(&command, wait::LIMIT).await?.success()?;
        assert!(said.contains(&*bin.join("preload-sidecar").to_string_lossy()), "{said}");
    }
    let mut installed = Command::new(bin.join("preload-sidecar"));
    installed.arg("--version");
    assert!(sandbox.run(&installed, wait::LIMIT).await?.success()?.contains("preload-sidecar"));
    let mut command = Command::new(leash::sibling("preload-sidecar")?);
    command.arg("install").arg("/proc/nowhere");
    let output = sandbox.run(&command, wait::LIMIT).await?;
    assert_eq!(output.exit, Exit::Code(1));
    assert!(output.stderr.contains("/proc/nowhere/preload-sidecar"), "{output:?}");
    Ok(())
}
