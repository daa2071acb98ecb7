//! What can go wrong in a call, told by who has to act: wait and try again (`is_transient`), correct the input,
//! or look at the cluster.

use std::time::Duration;

/// The cause below an [`Error::Unreachable`].
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call to Alluxio gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection, a connection that broke, or a server that answered UNAVAILABLE (it starts, is in safe mode or
    /// is not the leader), after every configured address was tried.
    #[error("alluxio server {server} is unreachable")]
    Unreachable {
        /// `host:port` tried last.
        server: String,
        /// What the transport or the server said.
        #[source]
        source: Source,
    },
    /// The server holds the connection but did not answer in time.
    #[error("alluxio server {server} did not answer within {after:?}")]
    DeadlineExceeded {
        /// `host:port` asked last.
        server: String,
        /// The limit that passed: [`crate::Config::call_timeout`] or [`crate::Config::listing_idle_timeout`].
        after: Duration,
    },
    /// The path, or the job, does not exist.
    #[error("{path} does not exist in alluxio")]
    NotFound {
        /// The path asked for; for a job `job ID`.
        path: String,
    },
    /// The user of [`crate::Config::user`] may not do this.
    #[error("alluxio denies permission: {message}")]
    PermissionDenied {
        /// The server's words.
        message: String,
    },
    /// The server refuses our way of authentication (neither SIMPLE nor NOSASL, or an unknown user).
    #[error("alluxio server {server} refuses to authenticate: {message}")]
    Unauthenticated {
        /// `host:port`.
        server: String,
        /// The server's words.
        message: String,
    },
    /// The server does not accept an argument, for example a relative path.
    #[error("alluxio refuses the argument: {message}")]
    InvalidArgument {
        /// The server's words.
        message: String,
    },
    /// This version or kind of server does not know the call.
    #[error("alluxio server {server} does not know the call: {message}")]
    Unsupported {
        /// `host:port`.
        server: String,
        /// The server's words.
        message: String,
    },
    /// Any other error status of the server.
    #[error("alluxio server {server} answered {code:?}: {message}")]
    Server {
        /// `host:port`.
        server: String,
        /// The gRPC status code.
        code: tonic::Code,
        /// The server's words.
        message: String,
    },
    /// An answer that breaks the protocol: not decodable, a negative length, a field without which the answer means
    /// nothing.
    #[error("alluxio answered against its protocol: {message}")]
    Protocol {
        /// What is wrong, and where.
        message: String,
    },
}

impl Error {
    /// `subject` is what NOT_FOUND is about.
    pub(crate) fn from_status(status: tonic::Status, server: &str, subject: Option<&str>) -> Error {
        use tonic::Code;
        let server = server.to_owned();
        if status.code() == Code::Unavailable || std::error::Error::source(&status).is_some() {
            return Error::Unreachable { server, source: status.into() };
        }
        let message = status.message().to_owned();
        match (status.code(), subject) {
            (Code::NotFound, Some(subject)) => Error::NotFound { path: subject.to_owned() },
            (Code::PermissionDenied, _) => Error::PermissionDenied { message },
            (Code::Unauthenticated, _) => Error::Unauthenticated { server, message },
            (Code::InvalidArgument, _) => Error::InvalidArgument { message },
            (Code::Unimplemented, _) => Error::Unsupported { server, message },
            (code, _) => Error::Server { server, code, message },
        }
    }

    /// Whether the same call may succeed later without anybody changing the request.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::DeadlineExceeded { .. } => true,
            Error::Server { code, .. } => {
                use tonic::Code;
                matches!(
                    code,
                    Code::ResourceExhausted | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded
                )
            }
            Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::InvalidArgument { .. }
            | Error::Unsupported { .. }
            | Error::Protocol { .. } => false,
        }
    }
}
