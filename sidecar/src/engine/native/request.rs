//! One request to one worker, and what became of it. What differs between versions of Alluxio is here: the Load RPC
//! came with 2.9.

use std::{collections::HashMap, time::Duration};

use alluxio_client::{Client, Error, UfsBlock, WorkerAddress};
use tonic::Code;

/// For a request whatever its size, such as a worker in a long garbage collection.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// The slowest under file system that is waited for, in bytes a second.
const SLOWEST: u64 = 1 << 20;

/// Says a worker that goes on reading after 30 s (2.9.3): the block is there when it is done.
const STILL_READING: &str = "Fail to finish cache request synchronously";

/// Says a worker of a block that it makes at this moment for another call. Where that call was cut off while the worker
/// told the master of the block, it goes on for 2 minutes, and fails (2.9.3).
const BEING_MADE: &str = "is not available, because it already exists";

/// What a worker is asked.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Small blocks. Needs no source: the worker reads the UFS.
    Load(Vec<UfsBlock>),
    /// One block, from `source`.
    Cache { block: UfsBlock, source: String },
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
    pub(super) async fn send(
        &self,
        client: &Client,
        worker: &WorkerAddress,
    ) -> Result<HashMap<i64, String>, Trouble> {
        match self {
            Self::Load(blocks) => {
                let bytes = blocks.iter().map(|block| block.length).sum();
                let failed = client.load_blocks(worker, blocks, deadline(bytes)).await;
                match failed {
                    Ok(failed) => Ok(failed
                        .into_iter()
                        .filter(|failure| {
                            failure.code != Code::AlreadyExists || is_being_made(&failure.message)
                        })
                        .map(|failure| (failure.id, failure.message))
                        .collect()),
                    Err(error) => {
                        let message = trouble(error)?;
                        Ok(blocks.iter().map(|block| (block.id, message.clone())).collect())
                    }
                }
            }
            Self::Cache { block, source } => {
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
            Self::Load(blocks) => blocks.iter().map(|block| block.length).sum(),
            Self::Cache { block, .. } => block.length,
        }
    }
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
        assert!(!is_being_made("Temp blockId 503316480 is not available, because it is already committed"));
    }

    #[test]
    fn a_block_has_time_in_proportion_to_its_length() {
        assert_eq!(deadline(64 << 20), Duration::from_secs(124));
    }
}
