//! One request to one worker, and what became of it. What differs between versions of Alluxio is here: the Load RPC
//! came with 2.9.

use std::{collections::HashMap, time::Duration};

use alluxio_client::{BlockFailure, Client, Error, UfsBlock, WorkerAddress};
use futures_util::future::join_all;
use tonic::Code;

/// For a request whatever its size, such as a worker in a long garbage collection.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// A worker waits 60 s for those who use a block: no removal may come after its end was not waited for.
pub(super) const REMOVED_WITHIN: Duration = Duration::from_secs(70);
/// Two heartbeats of a worker (alluxio.worker.block.heartbeat.interval), and some.
const HEARTBEATS: Duration = Duration::from_millis(2500);
/// The slowest under file system that is waited for, in bytes a second.
const SLOWEST: u64 = 1 << 20;

/// Says a worker that goes on reading after 30 s (2.9.3): the block is there when it is done.
const STILL_READING: &str = "Fail to finish cache request synchronously";

/// Says a worker of a block that it makes at this moment for another call. Where that call was cut off while the worker
/// told the master of the block, it goes on for 2 minutes, and fails (2.9.3).
const BEING_MADE: &str = "is not available, because it already exists";

/// Says a worker of a block that it has.
const COMMITTED: &str = "is not available, because it is already committed";

/// What a worker is asked.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Small blocks. Needs no source: the worker reads the UFS.
    Load(Vec<UfsBlock>),
    /// One block, from `source`.
    Cache { block: UfsBlock, source: String },
}

/// The worker that is asked is not believed when it says that it has a block which the master does not know: one that was
/// cut off while it told the master of a block holds it, and the master never hears of it (2.9.3).
#[derive(Debug, Clone)]
pub(super) struct Insist {
    pub(super) worker: i64,
    /// Alluxio paths, by block.
    pub(super) paths: HashMap<i64, String>,
}

/// What went wrong with a request as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The worker did not answer, or not in time: others may.
    Silent(String),
    /// It was not waited for: the worker has fallen silent. It may do what it was asked all the same.
    CutOff,
    /// It does not know the call.
    Unsupported,
    /// It goes on, and is to be asked again.
    StillReading,
}

impl Request {
    /// Sends it; gives the blocks that failed by their ids, with the worker's words.
    ///
    /// With `insist`, what the worker has and the master does not know is removed and loaded anew.
    pub(super) async fn send(
        &self,
        client: &Client,
        worker: &WorkerAddress,
        insist: Option<&Insist>,
    ) -> Result<HashMap<i64, String>, Trouble> {
        match self {
            Self::Load(blocks) => {
                let (mut failed, there) = load(client, worker, blocks).await?;
                if let Some(insist) = insist {
                    let there = blocks.iter().filter(|block| there.contains(&block.id));
                    let mut unknown = insist.unknown(client, there).await;
                    failed.extend(remove(client, worker, &unknown).await);
                    unknown.retain(|block| !failed.contains_key(&block.id));
                    failed.extend(load(client, worker, &unknown).await?.0);
                }
                Ok(failed)
            }
            Self::Cache { block, source } => {
                if let Some(insist) = insist {
                    // One that holds on to it makes it at this moment, and is waited for below.
                    remove(client, worker, &insist.unknown(client, [block]).await).await;
                }
                let source = (source.as_str(), worker.rpc_port);
                match client.cache_block(worker, block, source, deadline(block.length)).await {
                    Ok(()) => Ok(HashMap::new()),
                    Err(error) => Ok(HashMap::from([(block.id, trouble(error)?)])),
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Load(blocks) => length(blocks),
            Self::Cache { block, .. } => block.length,
        }
    }
}

impl Insist {
    /// Of `blocks` those that the master does not know on this worker, now: others may have cached some since they were
    /// listed. Where it does not answer, none.
    async fn unknown<'a>(
        &self,
        client: &Client,
        blocks: impl IntoIterator<Item = &'a UfsBlock>,
    ) -> Vec<UfsBlock> {
        let asked = blocks.into_iter().map(async |block| {
            let file = client.status(self.paths.get(&block.id)?).await.ok()?;
            let listed = file.blocks.iter().find(|listed| listed.id == block.id)?;
            (!listed.workers.contains(&self.worker)).then(|| block.clone())
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// The Load RPC: which blocks failed and why, and which were there already.
async fn load(
    client: &Client,
    worker: &WorkerAddress,
    blocks: &[UfsBlock],
) -> Result<(HashMap<i64, String>, Vec<i64>), Trouble> {
    if blocks.is_empty() {
        return Ok((HashMap::new(), Vec::new()));
    }
    let failures = match client.load_blocks(worker, blocks, deadline(length(blocks))).await {
        Ok(failures) => failures,
        Err(error) => {
            let message = trouble(error)?;
            return Ok((blocks.iter().map(|block| (block.id, message.clone())).collect(), Vec::new()));
        }
    };
    let is_there = |failure: &BlockFailure| is_there(failure.code, &failure.message);
    let (there, failed): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_there);
    let failed = failed.into_iter().map(|failure| (failure.id, failure.message)).collect();
    Ok((failed, there.into_iter().map(|failure| failure.id).collect()))
}

/// Takes the blocks out of the worker's cache, and lets the master hear of it: what is cached again before the worker's
/// heartbeat is taken for removed (2.9.3). Gives those that it holds on to.
async fn remove(client: &Client, worker: &WorkerAddress, blocks: &[UfsBlock]) -> HashMap<i64, String> {
    let removed = join_all(
        blocks
            .iter()
            .map(|block| async { (block.id, client.remove_block(worker, block.id, REMOVED_WITHIN).await) }),
    );
    let mut held = HashMap::new();
    let mut any = false;
    for (id, removed) in removed.await {
        match removed {
            Ok(()) => any = true,
            Err(Error::NotFound { .. }) => {}
            Err(error) => {
                let why =
                    format!("the worker holds it unknown to the master, and does not let go of it: {error}");
                held.insert(id, why);
            }
        }
    }
    if any {
        tokio::time::sleep(HEARTBEATS).await;
    }
    held
}

/// The worker has the block already, whether the master knows or not. It says so by the code or, where the block was
/// committed while the call waited for it, by its words under another code (2.9.3).
fn is_there(code: Code, words: &str) -> bool {
    words.contains(COMMITTED) || (code == Code::AlreadyExists && !is_being_made(words))
}

/// By these words of a worker the block is neither there nor refused: somebody else's call makes it, or fails to.
pub(super) fn is_being_made(words: &str) -> bool {
    words.contains(BEING_MADE)
}

/// The worker's words about a block; or trouble that says nothing about it.
fn trouble(error: Error) -> Result<String, Trouble> {
    match error {
        Error::Unsupported { .. } => Err(Trouble::Unsupported),
        Error::Server { message, .. } if message.contains(STILL_READING) => Err(Trouble::StillReading),
        Error::Server { message, .. } => Ok(message),
        Error::Unreachable { .. } | Error::DeadlineExceeded { .. } | Error::Unauthenticated { .. } => {
            Err(Trouble::Silent(error.to_string()))
        }
        error => Ok(error.to_string()),
    }
}

fn length(blocks: &[UfsBlock]) -> u64 {
    blocks.iter().map(|block| block.length).fold(0, u64::saturating_add)
}

fn deadline(bytes: u64) -> Duration {
    SHORTEST_DEADLINE + Duration::from_secs(bytes / SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_told_from_its_silence() {
        let server =
            |code, message: &str| Error::Server { server: "w:1".into(), code, message: message.into() };
        assert_eq!(trouble(server(Code::Unknown, "gone")), Ok("gone".to_owned()));
        let still = server(Code::Cancelled, "Fail to finish cache request synchronously due to timeout");
        assert_eq!(trouble(still), Err(Trouble::StillReading));
        let unsupported = Error::Unsupported { server: "w:1".into(), message: "Load".into() };
        assert_eq!(trouble(unsupported), Err(Trouble::Unsupported));
        let silent = Error::DeadlineExceeded { server: "w:1".into(), after: Duration::from_secs(1) };
        assert!(matches!(trouble(silent), Err(Trouble::Silent(_))));
    }

    #[test]
    fn a_block_that_is_being_made_is_told_from_one_that_is_there() {
        assert!(is_being_made("Temp blockId 503316480 is not available, because it already exists"));
        let committed = "Temp blockId 503316480 is not available, because it is already committed";
        assert!(!is_being_made(committed));
        assert!(is_there(Code::AlreadyExists, committed) && is_there(Code::Unknown, committed));
        assert!(is_there(Code::AlreadyExists, ""));
        let making = "Temp blockId 503316480 is not available, because it already exists";
        assert!(!is_there(Code::AlreadyExists, making) && !is_there(Code::Unknown, "gone"));
    }

    #[test]
    fn a_block_has_time_in_proportion_to_its_length() {
        assert_eq!(deadline(64 << 20), Duration::from_secs(124));
    }
}
