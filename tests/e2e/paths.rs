//! Every kind of path that a load may be asked for.

use crate::history;
use alluxio_preload_api::v1::load::{Reason, State};
use alluxio_preload_api::v1::load_spec::{Engine, LoadMetadata};
use alluxio_preload_api::v1::{Load, StartLoadRequest};
use anyhow::{Context, Result};
use preload_tests::{Cluster, Data, ODD_NAMES, Options, Sidecar, load, shared};
use std::fs;
use tonic::Code;
use tonic_types::RpcStatusExt;

const NOTHING: &[&str] = &[];

/// The same wish by one engine.
fn by(engine: Engine, mut request: StartLoadRequest) -> StartLoadRequest {
    if let Some(spec) = &mut request.spec {
        spec.set_engine(engine);
    }
    request
}

async fn loaded(sidecar: &Sidecar<'_>, request: StartLoadRequest) -> Result<Load> {
    let id = sidecar.start_load(request).await?.id;
    let load = sidecar.in_state(&id, State::Loaded).await?;
    history::assert_complete(&load)?;
    Ok(load)
}

fn files_and_bytes(load: &Load) -> (u64, u64) {
    let progress = load.progress.unwrap_or_default();
    assert_eq!(progress.files_total, progress.files_cached);
    assert_eq!(progress.bytes_total, progress.bytes_cached);
    (progress.files_total, progress.bytes_total)
}

#[tokio::test]
async fn a_path_that_does_not_exist() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("missing")?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    for (id, path) in [("a", format!("{}/nope", data.path())), ("b", format!("{}/no/pe", data.path()))] {
        sidecar.start_load(load(id, &path, 1)).await?;
        let failed = sidecar.in_state(id, State::Failed).await?;
        history::assert_complete(&failed)?;
        let states = [State::Queued, State::Waiting, State::Listing, State::Failed];
        assert_eq!(history::states(&failed), states);
        assert_eq!((failed.reason(), failed.attempt, failed.failures), (Reason::PathNotFound, 0, 0));
        assert!(failed.message.contains(&path), "{}", failed.message);
        let error = failed.error.context("the error")?;
        assert_eq!(error.code, i32::from(Code::NotFound));
        assert_eq!(error.get_details_error_info().context("no ErrorInfo")?.reason, "PATH_NOT_FOUND");
    }
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_file_alone() -> Result<()> {
    file_alone(Engine::DistributedLoad).await
}

#[tokio::test]
async fn a_file_alone_natively() -> Result<()> {
    file_alone(Engine::Native).await
}

async fn file_alone(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("file")?;
    let path = data.file("the one", 5000)?;
    data.file("the one beside", 5000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let load = loaded(&sidecar, by(engine, load("a", &path, 2))).await?;
    assert_eq!(files_and_bytes(&load), (1, 2 * 5000));
    cluster.oracle().assert_loaded(&path, 2).await?;
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!(copies.missing(1), [format!("{}/the one beside", data.path())]);
    sidecar.assert_quiet()
}

#[tokio::test]
async fn nothing_to_load_is_loaded_with_a_warning() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("empty")?;
    let folders = data.below("folders")?;
    folders.below("a/b")?;
    let hollow = data.below("hollow")?;
    let file = hollow.file("empty.bin", 0)?;
    hollow.file("below/empty.bin", 0)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    for (id, path) in [("folders", folders.path()), ("hollow", hollow.path()), ("file", &file)] {
        let load = loaded(&sidecar, load(id, path, 2)).await?;
        assert_eq!((load.reason(), load.attempt), (Reason::Empty, 0), "{path}");
        assert!(load.message.contains(path), "{}", load.message);
        assert_eq!(files_and_bytes(&load), (0, 0), "{path}");
    }
    sidecar.assert_quiet()
}

#[tokio::test]
async fn a_nested_tree_with_an_empty_file() -> Result<()> {
    nested_tree(Engine::DistributedLoad).await
}

#[tokio::test]
async fn a_nested_tree_with_an_empty_file_natively() -> Result<()> {
    nested_tree(Engine::Native).await
}

async fn nested_tree(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("tree")?;
    data.tree(3000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let inner = loaded(&sidecar, by(engine, load("inner", &format!("{}/a1/b1", data.path()), 1))).await?;
    assert_eq!(files_and_bytes(&inner), (4, 4 * 3000));
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!(copies.missing(1).len(), 36, "the rest is not cached");

    let whole = loaded(&sidecar, by(engine, load("whole", data.path(), 1))).await?;
    assert_eq!(files_and_bytes(&whole), (40, 40 * 3000), "files with data");
    assert_eq!(whole.reason(), Reason::Unspecified);
    let tree = cluster.oracle().tree(data.path()).await?;
    assert_eq!(tree.paths().len(), 41);
    assert_eq!(tree.copies()?.files.len(), 40);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}

#[tokio::test]
async fn odd_names_below_the_path() -> Result<()> {
    odd_names_below(Engine::DistributedLoad).await
}

#[tokio::test]
async fn odd_names_below_the_path_natively() -> Result<()> {
    odd_names_below(Engine::Native).await
}

async fn odd_names_below(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("odd-below")?;
    let mut paths = data.odd_names(700)?;
    paths.sort();
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let load = loaded(&sidecar, by(engine, load("a", data.path(), 1))).await?;
    assert_eq!(files_and_bytes(&load), (paths.len() as u64, 700 * paths.len() as u64));
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!(copies.files.keys().cloned().collect::<Vec<_>>(), paths);
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}

/// Directories and files of odd names as the path itself, which reaches a command line. Each has a twin
/// beside it that must not be loaded.
#[tokio::test]
async fn odd_names_as_the_path() -> Result<()> {
    odd_names_as_path(Engine::DistributedLoad).await
}

#[tokio::test]
async fn odd_names_as_the_path_natively() -> Result<()> {
    odd_names_as_path(Engine::Native).await
}

async fn odd_names_as_path(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("odd")?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    // The contract refuses line breaks.
    let names = || ODD_NAMES.into_iter().filter(|name| !name.contains('\n')).enumerate();
    for (number, name) in names() {
        let parent = data.below(&number.to_string())?;
        let path = if number % 2 == 0 {
            parent.file(&format!("{name}/{name}"), 900)?;
            format!("{}/{name}", parent.path())
        } else {
            parent.file(name, 900)?
        };
        parent.file("twin", 900)?;
        sidecar.start_load(by(engine, load(&number.to_string(), &path, 1))).await?;
    }
    for (number, name) in names() {
        let load = sidecar.in_state(&number.to_string(), State::Loaded).await.context(name)?;
        assert_eq!((files_and_bytes(&load), load.attempt), ((1, 900), 1), "{name:?}");
        let path = load.spec.context("the spec")?.path;
        cluster.oracle().assert_loaded(&path, 1).await.context(name)?;
        let parent = format!("{}/{number}", data.path());
        let copies = cluster.oracle().copies(&parent).await?;
        assert_eq!(copies.missing(1), [format!("{parent}/twin")], "{name:?}");
    }
    sidecar.assert_quiet()
}

#[tokio::test]
async fn two_mounts_below_the_path() -> Result<()> {
    two_mounts(Engine::DistributedLoad).await
}

#[tokio::test]
async fn two_mounts_below_the_path_natively() -> Result<()> {
    two_mounts(Engine::Native).await
}

async fn two_mounts(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("mounts")?;
    data.files(2, 1000)?;
    // A mount point needs a parent that Alluxio has seen.
    assert_eq!(cluster.oracle().tree(data.path()).await?.paths().len(), 2);
    let one = cluster.mount(&format!("{}/one", data.path())).await?;
    one.files(3, 1000)?;
    let two = cluster.mount(&format!("{}/two", data.path())).await?;
    two.tree(1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    let load = loaded(&sidecar, by(engine, load("a", data.path(), 1))).await?;
    assert_eq!(files_and_bytes(&load), (45, 45_000));
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    for (mounted, files) in [(&one, 3), (&two, 40)] {
        let copies = cluster.oracle().copies(mounted.path()).await?;
        assert_eq!((copies.files.len(), copies.fewest()), (files, 1), "{}", mounted.path());
    }
    sidecar.assert_quiet()
}

#[tokio::test]
async fn the_root_with_a_mount() -> Result<()> {
    root_with_mount(Engine::DistributedLoad).await
}

#[tokio::test]
async fn the_root_with_a_mount_natively() -> Result<()> {
    root_with_mount(Engine::Native).await
}

async fn root_with_mount(engine: Engine) -> Result<()> {
    let cluster = Cluster::start(Options { workers: 1, ..Options::default() }).await?;
    let data = cluster.data("root")?;
    data.files(2, 1000)?;
    cluster.mount("/mounted").await?.files(3, 1000)?;
    let sidecar = Sidecar::start(&cluster, NOTHING).await?;
    let load = loaded(&sidecar, by(engine, load("a", "/", 1))).await?;
    assert_eq!(files_and_bytes(&load), (5, 5000));
    cluster.oracle().assert_loaded("/", 1).await?;
    sidecar.assert_quiet()?;
    drop(sidecar);
    cluster.stop()
}

fn with_metadata(id: &str, data: &Data, metadata: LoadMetadata) -> StartLoadRequest {
    let mut request = load(id, data.path(), 1);
    if let Some(spec) = &mut request.spec {
        spec.set_load_metadata(metadata);
    }
    request
}

#[tokio::test]
async fn files_that_come_and_go_are_seen_when_metadata_is_always_loaded() -> Result<()> {
    files_come_and_go(Engine::DistributedLoad).await
}

#[tokio::test]
async fn files_that_come_and_go_are_seen_when_metadata_is_always_loaded_natively() -> Result<()> {
    files_come_and_go(Engine::Native).await
}

async fn files_come_and_go(engine: Engine) -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("metadata")?;
    data.files(3, 1000)?;
    let sidecar = Sidecar::start(cluster, NOTHING).await?;
    sidecar.start_load(with_metadata("unseen", &data, LoadMetadata::Never)).await?;
    let unseen = sidecar.in_state("unseen", State::Failed).await?;
    assert_eq!(unseen.reason(), Reason::PathNotFound, "Alluxio has not seen it yet");

    let first = loaded(&sidecar, by(engine, with_metadata("first", &data, LoadMetadata::Once))).await?;
    assert_eq!(files_and_bytes(&first), (3, 3000));
    let new = data.file("new", 500)?;
    data.file("folder/new", 500)?;
    fs::remove_file(data.ufs().join("f00000"))?;
    for (id, metadata) in [("once", LoadMetadata::Once), ("never", LoadMetadata::Never)] {
        let load = loaded(&sidecar, by(engine, with_metadata(id, &data, metadata))).await?;
        assert_eq!((files_and_bytes(&load), load.attempt), ((3, 3000), 0), "{id}");
    }
    let always = loaded(&sidecar, by(engine, with_metadata("always", &data, LoadMetadata::Always))).await?;
    assert_eq!((files_and_bytes(&always), always.attempt), ((4, 3000), 1));
    let copies = cluster.oracle().copies(data.path()).await?;
    assert_eq!((copies.files.len(), copies.fewest()), (4, 1));
    assert!(copies.files.contains_key(&new));
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_quiet()
}
