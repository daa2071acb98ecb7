//! State directories that are full, read-only, in use, no directories, or damaged: the sidecar stays up, says
//! what is wrong and what to do, loses nothing that it acknowledged, and goes on by itself when it is mended.

use crate::outcome::begin_with;
use crate::support::{cancel, loaders, status_of, watch_until};
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{ListLoadsRequest, Load};
use anyhow::{Context, Result, ensure};
use preload_tests::{Exit, Sandbox, Setup, Sidecar, SmallDisk, http, load, shared, wait};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use tonic::{Code, Status};

const FILE: &str = "loads.sqlite3";

/// What `/readyz` says once it says more than that it has just been started: `None` is ready.
async fn trouble(sidecar: &Sidecar<'_>) -> Result<Option<String>> {
    wait::until("a word of /readyz", wait::LIMIT, async || {
        let (status, body) = http::get(sidecar.admin_address(), "/readyz").await?;
        ensure!(!body.contains("being opened"), "{body}");
        Ok(Some((status != 200).then_some(body)))
    })
    .await
}

/// The process is up, and calls of every kind are refused with the words of `/readyz`, which name `all`.
pub(crate) async fn assert_unusable(sidecar: &Sidecar<'_>, all: &[&str]) -> Result<()> {
    let words = trouble(sidecar).await?.context("the sidecar says that it is ready")?;
    let words = words.trim_end();
    assert_eq!(all.iter().find(|part| !words.contains(**part)), None, "{words}");
    let (alive, _) = http::get(sidecar.admin_address(), "/livez").await?;
    assert_eq!(alive, 200);
    for refused in [
        status_of(sidecar.start_load(load("refused", "/", 1)).await)?,
        status_of(sidecar.get_load("refused").await)?,
        status_of(cancel(sidecar, "refused").await)?,
    ] {
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, words));
    }
    Ok(())
}

fn assert_full(refused: &Status) {
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(FILE) && refused.message().contains("make room"), "{refused:?}");
}

#[test]
fn a_full_disk_loses_nothing_and_a_running_load_ends_when_there_is_room() -> Result<()> {
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = outside.block_on(shared())?;
    SmallDisk::run(async |_, disk| {
        let data = cluster.data("full-disk")?;
        data.files(150, 16 * 1024)?;
        let mut sidecar = Setup::new(cluster).state_directory(disk.path().join("state")).start().await?;
        begin_with(&sidecar, Engine::DistributedLoad, "running", data.path(), 1).await?;
        let loading = watch_until(&sidecar, "running", |load| load.state() == State::Loading).await?;
        let behind = sidecar.start_load(load("behind", data.path(), 1)).await?;

        disk.fill()?;
        assert_full(&status_of(sidecar.start_load(load("late", data.path(), 1)).await)?);
        assert_eq!(status_of(sidecar.get_load("late").await)?.code(), Code::NotFound, "nothing half done");
        assert_full(&status_of(cancel(&sidecar, "running").await)?);
        wait::until("the command to end", wait::LIMIT, async || {
            Ok(loaders(cluster, data.path()).is_empty().then_some(()))
        })
        .await?;
        // What cannot be stored is not told.
        let now = sidecar.get_load("running").await?;
        assert_eq!((now.state(), &now.transitions), (State::Loading, &loading.transitions));
        assert_eq!(http::get(sidecar.admin_address(), "/livez").await?.0, 200);

        disk.make_room()?;
        let loaded = sidecar.in_state("running", State::Loaded).await?;
        assert_eq!(loaded.uid, now.uid);
        cluster.oracle().assert_loaded(data.path(), 1).await?;
        assert_eq!(sidecar.in_state("behind", State::Loaded).await?.uid, behind.uid);
        sidecar.start_load(load("late", data.path(), 1)).await?;
        sidecar.in_state("late", State::Loaded).await?;
        assert_eq!(sidecar.terminate().await?, Exit::Code(0));
        Ok(())
    })
}

#[test]
fn a_disk_that_is_full_at_the_start() -> Result<()> {
    SmallDisk::run(async |sandbox, disk| {
        let state = disk.path().join("state");
        disk.fill()?;
        let mut sidecar = Setup::alone(sandbox).state_directory(&state).spawn()?;
        assert_unusable(&sidecar, &[&state.to_string_lossy(), "make room"]).await?;
        disk.make_room()?;
        sidecar.ready().await?;
        let acknowledged = sidecar.start_load(load("a", "/a", 1)).await?;

        sidecar.kill9().await?;
        disk.fill()?;
        let mut again = Setup::alone(sandbox).state_directory(&state).spawn()?;
        // It may be able to read what is there.
        if trouble(&again).await?.is_some() {
            assert_unusable(&again, &[&state.to_string_lossy(), "make room"]).await?;
        } else {
            assert_eq!(again.get_load("a").await?.uid, acknowledged.uid);
        }
        disk.make_room()?;
        again.ready().await?;
        assert_eq!(again.get_load("a").await?.uid, acknowledged.uid);
        assert_eq!(again.terminate().await?, Exit::Code(0));
        Ok(())
    })
}

#[test]
fn a_read_only_disk() -> Result<()> {
    SmallDisk::run(async |sandbox, disk| {
        let (state, fresh) = (disk.path().join("state"), disk.path().join("fresh"));
        let mut sidecar = Setup::alone(sandbox).state_directory(&state).start().await?;
        let acknowledged = sidecar.start_load(load("a", "/a", 1)).await?;
        sidecar.kill9().await?;
        disk.read_only(true)?;
        let mut sidecars = Vec::new();
        for directory in [&state, &fresh] {
            let sidecar = Setup::alone(sandbox).state_directory(directory).spawn()?;
            let file = directory.to_string_lossy();
            assert_unusable(&sidecar, &[&file, "read-only", "mount it writable"]).await?;
            sidecars.push(sidecar);
        }
        disk.read_only(false)?;
        for sidecar in &mut sidecars {
            sidecar.ready().await?;
        }
        assert_eq!(sidecars[0].get_load("a").await?.uid, acknowledged.uid);
        assert_eq!(status_of(sidecars[1].get_load("a").await)?.code(), Code::NotFound);
        for sidecar in &mut sidecars {
            assert_eq!(sidecar.terminate().await?, Exit::Code(0));
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_state_directory_that_is_none() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let folder = sandbox.folder("states")?;
    let in_the_way = folder.join("file");
    for directory in [in_the_way.clone(), in_the_way.join("below")] {
        fs::write(&in_the_way, "not ours")?;
        let mut sidecar = Setup::alone(&sandbox).state_directory(&directory).spawn()?;
        let named = directory.to_string_lossy();
        assert_unusable(&sidecar, &[&named, "is not a directory", "state directory"]).await?;
        assert_eq!(fs::read_to_string(&in_the_way)?, "not ours");
        fs::remove_file(&in_the_way)?;
        sidecar.ready().await?;
        sidecar.start_load(load("a", "/a", 1)).await?;
        assert_eq!(sidecar.terminate().await?, Exit::Code(0));
        fs::remove_dir_all(&in_the_way)?;
    }
    // Parents that are missing are made.
    let mut sidecar = Setup::alone(&sandbox).state_directory(folder.join("a/b/c")).start().await?;
    assert!(folder.join("a/b/c").join(FILE).is_file());
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    Ok(())
}

#[tokio::test]
async fn two_sidecars_on_one_state_directory() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut first = Setup::alone(&sandbox).start().await?;
    let state = first.state_directory().to_owned();
    let acknowledged = first.start_load(load("a", "/a", 1)).await?;
    let mut second = Setup::alone(&sandbox).state_directory(&state).spawn()?;
    let file = state.join(FILE);
    let owner = format!("in use by process {}", first.pid()?);
    assert_unusable(&second, &[&file.to_string_lossy(), &owner, "stop it"]).await?;
    assert_eq!(first.get_load("a").await?.uid, acknowledged.uid, "the first is not disturbed");

    first.kill9().await?;
    second.ready().await?;
    assert_eq!(second.get_load("a").await?.uid, acknowledged.uid);
    assert_eq!(second.terminate().await?, Exit::Code(0));
    Ok(())
}

/// A store with loads that have ended and loads that go on, cleanly closed, and what it acknowledged.
async fn store(sandbox: &Sandbox) -> Result<(std::path::PathBuf, BTreeMap<String, Load>)> {
    let mut sidecar = Setup::alone(sandbox).start().await?;
    let mut acknowledged = BTreeMap::new();
    for number in 0..24 {
        let id = format!("load-{number:02}");
        sidecar.start_load(load(&id, &format!("/{id}"), 1)).await?;
        if number % 4 != 0 {
            cancel(&sidecar, &id).await?;
            acknowledged.insert(id.clone(), sidecar.in_state(&id, State::Cancelled).await?);
        } else {
            acknowledged.insert(id.clone(), sidecar.get_load(&id).await?);
        }
    }
    ensure!(sidecar.terminate().await? == Exit::Code(0), "it did not end well");
    Ok((sidecar.state_directory().join(FILE), acknowledged))
}

/// How a sidecar took a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    /// Nothing that counts was hit.
    Whole,
    /// Some loads are named as damaged, the rest is served.
    InPart,
    /// The file is named, with the next step.
    Refused,
}

/// Starts a sidecar on `content` as its store, and judges every answer.
async fn take(sandbox: &Sandbox, content: &[u8], acknowledged: &BTreeMap<String, Load>) -> Result<Taken> {
    let state = sandbox.folder("damaged")?;
    File::create(state.join(FILE))?.write_all(content)?;
    let mut sidecar = Setup::alone(sandbox).state_directory(&state).spawn()?;
    let file = state.join(FILE);
    let taken = if trouble(&sidecar).await?.is_some() {
        assert_unusable(&sidecar, &[&file.to_string_lossy(), "damaged", "move", "aside"]).await?;
        Taken::Refused
    } else {
        let mut taken = Taken::Whole;
        for (id, before) in acknowledged {
            match sidecar.get_load(id).await {
                Ok(now) if before.state() == State::Cancelled => assert_eq!(now, *before),
                Ok(now) => {
                    assert_eq!((&now.uid, &now.spec), (&before.uid, &before.spec));
                    assert!(now.sequence > before.sequence && now.end_time.is_none(), "{now:?}");
                }
                Err(error) => {
                    let status = status_of::<Load>(Err(error))?;
                    assert_eq!(status.code(), Code::DataLoss, "{id}: {status:?}");
                    assert!(status.message().contains(id.as_str()), "{status:?}");
                    taken = Taken::InPart;
                }
            }
        }
        let request = ListLoadsRequest { page_size: 1000, ..ListLoadsRequest::default() };
        let listed = sidecar.client()?.list_loads(request).await?.into_inner().loads;
        assert!(listed.iter().all(|load| acknowledged.contains_key(&load.id)), "{listed:?}");
        taken
    };
    assert_eq!(sidecar.terminate().await?, Exit::Code(0));
    Ok(taken)
}

#[tokio::test]
async fn a_store_that_was_cut() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (file, acknowledged) = store(&sandbox).await?;
    let content = fs::read(&file)?;
    assert_eq!(take(&sandbox, &content, &acknowledged).await?, Taken::Whole);
    let length = content.len();
    for left in [0, 1, 100, 4096, length / 2, length - 4096, length - 1] {
        let taken = take(&sandbox, &content[..left], &acknowledged).await?;
        assert!(taken != Taken::Whole, "{left} of {length} bytes are left, and it is whole?");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_with_a_flipped_bit() -> Result<()> {
    const FLIPS: usize = 24;
    let sandbox = Sandbox::new()?;
    let (file, acknowledged) = store(&sandbox).await?;
    let content = fs::read(&file)?;
    let seed: usize = std::process::id() as usize;
    eprintln!("seed {seed}, {} bytes", content.len());
    let mut outcomes = BTreeMap::<Taken, usize>::new();
    for flip in 0..FLIPS {
        // Spread over the file, so that every kind of page is hit.
        let byte = (content.len() * flip / FLIPS + seed.wrapping_mul(7919) % 4096) % content.len();
        let mut damaged = content.clone();
        damaged[byte] ^= 1 << (flip % 8);
        let taken = take(&sandbox, &damaged, &acknowledged).await;
        *outcomes.entry(taken.with_context(|| format!("bit {} of byte {byte}", flip % 8))?).or_default() += 1;
    }
    eprintln!("{outcomes:?}");
    // In the body of a load: its words are in the file as they are.
    let needle = b"/load-05";
    let at = content.windows(needle.len()).position(|w| w == needle).context("a path in the file")?;
    let mut damaged = content.clone();
    damaged[at + 1] ^= 2;
    assert_ne!(take(&sandbox, &damaged, &acknowledged).await?, Taken::Whole);
    Ok(())
}
