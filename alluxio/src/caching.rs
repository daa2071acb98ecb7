//! What is asked of the workers: to cache a block of the UFS.
//!
//! An acknowledgement is a hint: a worker without room says ok and evicts, and what it holds is known to the master
//! after its next heartbeat (1 s).
//!
//! Requests to cache are not cut off when nobody waits for them any more: see `Client::unbroken_by`.

use crate::{
    Client, Error, WorkerAddress,
    connection::{Connection, MAX_MESSAGE},
    wire::block,
};
use block::block_worker_client::BlockWorkerClient;
use futures_util::{StreamExt, future::ready, stream};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tonic::Response;

/// A block as the UFS has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UfsBlock {
    /// Alluxio's block id.
    pub id: i64,
    /// Bytes.
    pub length: u64,
    /// The file that it is part of.
    pub ufs_path: Arc<str>,
    /// Where it begins in that file.
    pub offset: u64,
    /// Mount that the file belongs to.
    pub mount_id: i64,
}

/// What became of a block in [`Client::load_blocks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFailure {
    /// Alluxio's block id.
    pub id: i64,
    /// A gRPC status code.
    pub code: tonic::Code,
    /// The worker's words.
    pub message: String,
    /// The worker's word on whether it may succeed the next time.
    pub retryable: bool,
}

/// For a worker to end a read that was answered.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// Reads of one file that a worker lets run at once; what Alluxio's own clients send.
const UFS_READS: i32 = i32::MAX;

impl Client {
    /// Asks `worker` to cache `block`, and waits until it has, or until `deadline` is over. At once where it has it
    /// already. A block that cannot be read (file deleted or truncated in the UFS) is [`Error::Server`] with code
    /// UNKNOWN and the reason.
    ///
    /// `source` is where the worker reads. It reads the UFS itself when the host is what it takes for its own: the
    /// canonical name of its first address that is not loopback; the port does not matter then. Any other host is
    /// taken for another worker that holds the block or reads it from the UFS.
    pub async fn cache_block(
        &self,
        worker: &WorkerAddress,
        block: &UfsBlock,
        source: (&str, u16),
        deadline: Duration,
    ) -> Result<(), Error> {
        let request = block::CacheRequest {
            block_id: Some(block.id),
            source_host: Some(source.0.to_owned()),
            source_port: Some(source.1.into()),
            open_ufs_block_options: Some(block::OpenUfsBlockOptions {
                ufs_path: Some(block.ufs_path.as_ref().to_owned()),
                offset_in_file: Some(signed(block.offset)),
                block_size: Some(signed(block.length)),
                max_ufs_read_concurrency: Some(UFS_READS),
                mount_id: Some(block.mount_id),
                no_cache: Some(false),
                user: None,
            }),
            length: Some(signed(block.length)),
            r#async: Some(false),
        };
        self.unbroken_by(deadline, worker, move |connection| {
            let request = request.clone();
            async move { BlockWorkerClient::new(connection.service()).cache(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Asks `worker` to cache all of `blocks` from the UFS and waits for it; gives those that failed. From Alluxio 2.9
    /// on, [`Error::Unsupported`] before. The worker holds each block in memory as a whole while it reads it, and
    /// **caches a file that was truncated in the UFS without an error** (2.9.3).
    pub async fn load_blocks(
        &self,
        worker: &WorkerAddress,
        blocks: &[UfsBlock],
        deadline: Duration,
    ) -> Result<Vec<BlockFailure>, Error> {
        let request = block::LoadRequest {
            blocks: blocks
                .iter()
                .map(|block| block::Block {
                    block_id: Some(block.id),
                    length: Some(signed(block.length)),
                    ufs_path: Some(block.ufs_path.as_ref().to_owned()),
                    offset_in_file: Some(signed(block.offset)),
                    mount_id: Some(block.mount_id),
                })
                .collect(),
            options: Some(block::UfsReadOptions {
                tag: Some("preload".to_owned()),
                position_short: Some(false),
                bandwidth: None,
                user: None,
            }),
        };
        let load = move |connection: Arc<Connection>| {
            let request = request.clone();
            async move {
                BlockWorkerClient::new(connection.service())
                    .max_decoding_message_size(MAX_MESSAGE)
                    .load(request)
                    .await
            }
        };
        let response = self.unbroken_by(deadline, worker, load).await?;
        let failed = |status: &block::BlockStatus| status.code.unwrap_or_default() != 0;
        Ok(response
            .block_status
            .into_iter()
            .filter(failed)
            .map(|status| BlockFailure {
                code: status.code.unwrap_or_default().into(),
                message: status.message.unwrap_or_default(),
                retryable: status.retryable.unwrap_or_default(),
                id: status.block.unwrap_or_default().block_id.unwrap_or_default(),
            })
            .collect())
    }

    /// Whether `worker` has the last byte of the block in its cache; the UFS is not asked. False for a block that
    /// [`Client::load_blocks`] read from a file which had become shorter, [`Error::NotFound`] where it holds none.
    pub async fn has_last_byte(
        &self,
        worker: &WorkerAddress,
        (id, length): (i64, u64),
        deadline: Duration,
    ) -> Result<bool, Error> {
        let request = block::ReadRequest {
            block_id: Some(id),
            offset: Some(signed(length.saturating_sub(1))),
            length: Some(1),
            chunk_size: Some(1),
        };
        let subject = format!("block {id}");
        let read = self.worker(worker, deadline, Some(&subject), |connection| async move {
            let mut client = BlockWorkerClient::new(connection.service());
            // Open until the answer is there: a client that has nothing more to say is taken for gone. One that never
            // ends its stream keeps the call on both sides, for as long as the connection lasts.
            let (end, ended) = oneshot::channel::<()>();
            let requests = stream::once(ready(request)).chain(stream::pending().take_until(ended));
            let mut answers = client.read_block(requests).await?.into_inner();
            let answer = answers.message().await?;
            drop(end);
            // What it says of the end of the call does not matter.
            let _ = timeout(LEAVE_WITHIN, async { while let Ok(Some(_)) = answers.message().await {} }).await;
            Ok(Response::new(answer))
        });
        let answer = read.await?;
        Ok(answer.and_then(|answer| answer.chunk?.data).is_some_and(|data| data.len() == 1))
    }

    /// Takes a block out of the cache of one worker; the master hears of it with the next heartbeat (1 s).
    pub async fn remove_block(
        &self,
        worker: &WorkerAddress,
        id: i64,
        deadline: Duration,
    ) -> Result<(), Error> {
        let request = block::RemoveBlockRequest { block_id: Some(id) };
        let subject = format!("block {id}");
        self.worker(worker, deadline, Some(&subject), |connection| async move {
            BlockWorkerClient::new(connection.service()).remove_block(request).await
        })
        .await
        .map(|_| ())
    }
}

/// Alluxio has signed sizes.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
