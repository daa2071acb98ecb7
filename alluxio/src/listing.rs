//! A recursive listing, one file at a time.
//!
//! Memory: one message of the server (10,000 files, about 12 MB) and the HTTP/2 window, however long the listing.

use crate::{
    Error, File,
    codec::{Batch, ListingCodec},
    connection::{Connection, MAX_MESSAGE},
    wire::file::ListStatusPRequest,
};
use futures_util::{Stream, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery};

const METHOD: &str = "/alluxio.grpc.file.FileSystemMasterClientService/ListStatus";

/// Files and folders under a path, as the master sends them. Dropping it ends the call.
#[derive(Debug)]
pub struct Listing {
    path: String,
    idle_timeout: Duration,
    batch: Batch,
    answers: Streaming<Batch>,
    state: State,
    /// Keeps the channel authenticated.
    connection: Arc<Connection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Messages follow, then a status in the trailers.
    Open,
    /// The server sent its status with the headers: nothing follows.
    Empty,
    Finished,
    Failed,
}

impl Listing {
    pub(crate) async fn open(
        connection: Arc<Connection>,
        request: ListStatusPRequest,
        idle_timeout: Duration,
    ) -> Result<Response<Listing>, Status> {
        let path = request.path().to_owned();
        let mut client = Grpc::new(connection.service()).max_decoding_message_size(MAX_MESSAGE);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let response = client
            .server_streaming(
                Request::new(request),
                PathAndQuery::from_static(METHOD),
                ListingCodec::<ListStatusPRequest>::default(),
            )
            .await?;
        let state = if response.metadata().contains_key("grpc-status") { State::Empty } else { State::Open };
        Ok(response.map(|answers| Listing {
            path,
            idle_timeout,
            batch: Batch::default(),
            answers,
            state,
            connection,
        }))
    }

    /// The next file or folder, or `None` after the last. After an error the listing is over, and stays an error: a
    /// listing that broke must not look complete.
    pub async fn next(&mut self) -> Result<Option<File>, Error> {
        if self.state == State::Failed {
            return Err(Error::Protocol {
                message: format!("the listing of {} has failed before", self.path),
            });
        }
        let result = self.advance().await;
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    async fn advance(&mut self) -> Result<Option<File>, Error> {
        loop {
            if let Some(file) = self.batch.next()? {
                return File::try_from(file).map(Some);
            }
            if self.state == State::Finished {
                return Ok(None);
            }
            // Released before more is asked for, so that the buffer is used again.
            self.batch = Batch::default();
            match self.receive().await? {
                Some(batch) => self.batch = batch,
                None => self.state = State::Finished,
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Batch>, Error> {
        let server = self.connection.server();
        let received = async {
            if let Some(batch) = self.answers.message().await? {
                return Ok(Some(batch));
            }
            // A stream cut without a status would otherwise pass for a complete listing.
            if self.state == State::Open && self.answers.trailers().await?.is_none() {
                return Err(Status::unavailable("the listing ended without a status"));
            }
            Ok(None)
        };
        match timeout(self.idle_timeout, received).await {
            Ok(result) => result.map_err(|status| Error::from_status(status, server, Some(&self.path))),
            Err(_) => Err(Error::DeadlineExceeded { server: server.to_owned(), after: self.idle_timeout }),
        }
    }

    /// The same as a `Stream`; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<File, Error>> + Send {
        stream::try_unfold(self, |mut listing| async move {
            Ok(listing.next().await?.map(|file| (file, listing)))
        })
    }
}
