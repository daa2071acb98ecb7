//! Who loads: engine NATIVE through a sidecar, what Alluxio has for people, and cp.

use super::profile::{Profile, Profiled};
use super::scene::Scene;
use alluxio_preload_api::client::is_terminal;
use alluxio_preload_api::v1::load_spec::Engine;
use alluxio_preload_api::v1::{Load, WatchLoadRequest, load::State};
use anyhow::{Context, Result, bail};
use preload_tests::{Data, Sidecar, load, wait};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// For one load.
const LIMIT: Duration = Duration::from_secs(1800);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Native,
    DistributedLoad,
    /// Where distributedLoad alone fails on files that Alluxio has not seen.
    MetadataFirst,
    Load,
    Copy,
    ParallelCopy,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "NATIVE, StartLoad to LOADED",
            Self::DistributedLoad => "alluxio fs distributedLoad",
            Self::MetadataFirst => "alluxio fs loadMetadata -R, then distributedLoad",
            Self::Load => "alluxio fs load, until --progress says so",
            Self::Copy => "cp -r into memory",
            Self::ParallelCopy => "cp, four at a time",
        }
    }

    /// It leaves the data in Alluxio's cache.
    pub(super) fn caches(self) -> bool {
        matches!(self, Self::Native | Self::DistributedLoad | Self::MetadataFirst | Self::Load)
    }
}

/// What came of one run.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) seconds: f64,
    /// What is to be said of it, unless all is well.
    pub(super) said: String,
    /// Of NATIVE.
    pub(super) profile: Option<Profile>,
}

impl Done {
    /// Just now, and all is well.
    fn whole(begun: Instant) -> Self {
        Self { seconds: begun.elapsed().as_secs_f64(), said: String::new(), profile: None }
    }
}

/// One load by a sidecar.
#[derive(Debug)]
pub(super) struct Watched {
    /// From before StartLoad to the message of WatchLoad that says how it ended.
    pub(super) seconds: f64,
    /// Of them, until it was LOADING and VERIFYING first.
    pub(super) loading: Option<f64>,
    pub(super) verifying: Option<f64>,
    pub(super) load: Load,
}

/// Does it.
pub(super) async fn run(
    side: Side,
    scene: &Scene,
    sidecar: &Sidecar<'_>,
    data: &Data,
    replicas: usize,
) -> Result<Done> {
    match side {
        Side::Native => {
            let id = data.path().trim_start_matches('/');
            let profiled = Profiled::begin(scene.cluster(), sidecar)?;
            let watched = native(sidecar, id, data.path(), replicas, LIMIT).await?;
            let profile = profiled.end(scene.cluster(), &watched)?;
            let load = &watched.load;
            let said = if load.state() == State::Loaded { String::new() } else { words(load) };
            Ok(Done { seconds: watched.seconds, said, profile: Some(profile) })
        }
        Side::DistributedLoad => {
            let begun = Instant::now();
            let said = by_distributed_load(scene, data.path(), replicas).await;
            Ok(Done { said, ..Done::whole(begun) })
        }
        Side::MetadataFirst => {
            let begun = Instant::now();
            scene.alluxio(&["fs", "loadMetadata", "-R", data.path()]).await?;
            let said = by_distributed_load(scene, data.path(), replicas).await;
            Ok(Done { said, ..Done::whole(begun) })
        }
        Side::Load => {
            let begun = Instant::now();
            let said = by_load(scene, data.path()).await?;
            Ok(Done { said, ..Done::whole(begun) })
        }
        Side::Copy => copy(scene, data, replicas, r#"cp -r "$1" "$2"/copy"#).await,
        Side::ParallelCopy => {
            let script = r#"mkdir "$2"/copy; find "$1" -type f -print0 | xargs -0 -n 1 -P 4 cp -t "$2"/copy"#;
            copy(scene, data, replicas, script).await
        }
    }
}

/// Starts a load and watches it to its end.
pub(super) async fn native(
    sidecar: &Sidecar<'_>,
    id: &str,
    path: &str,
    replicas: usize,
    limit: Duration,
) -> Result<Watched> {
    let mut request = load(id, path, u32::try_from(replicas)?);
    if let Some(spec) = &mut request.spec {
        spec.set_engine(Engine::Native);
    }
    let mut client = sidecar.client()?;
    let begun = Instant::now();
    let watched = async {
        client.start_load(request).await.context("StartLoad")?;
        let request = WatchLoadRequest { load_id: id.to_owned(), ..WatchLoadRequest::default() };
        let mut stream = client.watch_load(request).await.context("WatchLoad")?.into_inner();
        let (mut loading, mut verifying, mut last) = (None, None, None);
        while let Some(load) = stream.message().await.context("WatchLoad")? {
            let seconds = begun.elapsed().as_secs_f64();
            match load.state() {
                State::Loading => _ = loading.get_or_insert(seconds),
                State::Verifying => _ = verifying.get_or_insert(seconds),
                state if is_terminal(state, false) => {
                    return Ok(Watched { seconds, loading, verifying, load });
                }
                _ => {}
            }
            last = Some(load);
        }
        bail!("the watch ended before the load: {last:?}")
    };
    let watched = tokio::time::timeout(limit, watched).await;
    watched.with_context(|| format!("load {id} takes longer than {limit:?}"))?
}

/// How a load stands, for people.
pub(super) fn words(load: &Load) -> String {
    format!("{:?}, {:?}: {}", load.state(), load.reason(), load.message)
}

/// That it fails now and then is a figure, too: its words.
async fn by_distributed_load(scene: &Scene, path: &str, replicas: usize) -> String {
    let arguments = ["fs", "distributedLoad", "--replication", &replicas.to_string(), path];
    let ended = scene.alluxio(&arguments).await;
    ended.err().map_or_else(String::new, |error| error.to_string())
}

/// A JVM to submit it, and one for each look.
async fn by_load(scene: &Scene, path: &str) -> Result<String> {
    scene.alluxio(&["fs", "load", path, "--submit"]).await.context("submit")?;
    wait::until("fs load", LIMIT, async || {
        let said = scene.alluxio(&["fs", "load", path, "--progress"]).await?;
        let line = |key: &str| {
            said.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default().trim()
        };
        Ok(match line("Job State:") {
            "" | "RUNNING" | "VERIFYING" => None,
            "SUCCEEDED" if matches!(line("Files Failed:"), "" | "0") => Some(String::new()),
            state => Some(format!("{state}, {} files failed", line("Files Failed:"))),
        })
    })
    .await
}

/// As often as there are copies, one after the other.
async fn copy(scene: &Scene, data: &Data, replicas: usize, script: &str) -> Result<Done> {
    let sandbox = scene.cluster().sandbox();
    let folders = (0..replicas)
        .map(|_| sandbox.memory_folder(&format!("copy-{}", sandbox.number())))
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    for folder in &folders {
        scene.shell(script, &[data.ufs(), folder]).await?;
    }
    let done = Done::whole(begun);
    let wanted = files(data.ufs())?;
    for folder in &folders {
        let copied = files(folder)?;
        if copied != wanted {
            bail!("cp left {copied:?} of {wanted:?} files and bytes");
        }
        fs::remove_dir_all(folder).context("remove the copy")?;
    }
    Ok(done)
}

/// How many, and their bytes.
fn files(directory: &Path) -> Result<(usize, u64)> {
    let mut found = (0, 0);
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        let (count, bytes) = match entry.file_type()?.is_dir() {
            true => files(&entry.path())?,
            false => (1, entry.metadata()?.len()),
        };
        found = (found.0 + count, found.1 + bytes);
    }
    Ok(found)
}
