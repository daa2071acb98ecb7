//! The addresses at which one service may be found, and the connection to the one that answers.
//!
//! Every call of this crate may be repeated without harm, so a call that meets a broken or forgotten connection, or a
//! server that does not lead, is tried again at the next address: at most once more than there are addresses.

use crate::{Config, Error, connection::Connection, wire::version::ServiceType};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Code, Response, Status};
use tracing::debug;

/// One service at one or more addresses. Holds at most one connection.
#[derive(Debug)]
pub(crate) struct Servers {
    kind: ServiceType,
    addresses: Vec<String>,
    config: Arc<Config>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Index of the address to connect to next.
    next: usize,
    connection: Option<Arc<Connection>>,
}

impl Servers {
    pub(crate) fn new(kind: ServiceType, addresses: Vec<String>, config: Arc<Config>) -> Servers {
        Servers { kind, addresses, config, state: Mutex::default() }
    }

    /// Runs a call, connecting before it where needed, all of it within `deadline`. `subject` is what NOT_FOUND is
    /// about.
    pub(crate) async fn call<T, F>(
        &self,
        deadline: Duration,
        subject: Option<&str>,
        call: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut asked = None;
        let result = timeout(deadline, self.attempts(&mut asked, subject, call)).await;
        let Ok(result) = result else {
            let server = match asked {
                // The next call starts afresh: a connection whose peer vanished looks like this too.
                Some(connection) => {
                    self.discard(&connection).await;
                    connection.server().to_owned()
                }
                None => self.addresses.join(","),
            };
            return Err(Error::DeadlineExceeded { server, after: deadline });
        };
        result
    }

    async fn attempts<T, F>(
        &self,
        asked: &mut Option<Arc<Connection>>,
        subject: Option<&str>,
        call: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut left = self.addresses.len();
        loop {
            *asked = None;
            let connection = self.connection().await?;
            *asked = Some(connection.clone());
            let status = match call(connection.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let elsewhere = worth_another_connection(&status);
            if elsewhere {
                debug!(server = connection.server(), %status, "call failed, connection given up");
                self.discard(&connection).await;
            }
            if !elsewhere || left == 0 {
                return Err(Error::from_status(status, connection.server(), subject));
            }
            left -= 1;
        }
    }

    /// The connection in use, or a new one to the first address that accepts it.
    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(connection.clone());
        }
        let mut result =
            Err(Error::InvalidArgument { message: "no server address is configured".to_owned() });
        for _ in 0..self.addresses.len() {
            let Some(address) = self.addresses.get(state.next) else { break };
            // Moved on before the attempt: whoever gives up waiting leaves the next address to the next caller.
            state.next = (state.next + 1) % self.addresses.len();
            match Connection::open(address, self.kind, &self.config).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    state.connection = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => {
                    debug!(server = address, %error, "no connection");
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Forgets a connection, if it is still the one in use; calls that hold it go on.
    async fn discard(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            state.connection = None;
        }
    }
}

fn worth_another_connection(status: &Status) -> bool {
    match status.code() {
        // Not there, not serving, or it has forgotten our channel.
        Code::Unavailable | Code::Unauthenticated => true,
        // With a source it is the transport that speaks: the connection broke under the call.
        _ => std::error::Error::source(status).is_some(),
    }
}
