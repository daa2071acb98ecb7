//! One authenticated HTTP/2 connection to one server.
//!
//! Invariant: a `Connection` owns the SASL stream of its channel. Alluxio keeps a channel authenticated for as long as
//! that stream is open, so it lives until the last call that uses the connection has ended.

use crate::{
    Config, Error,
    wire::{
        sasl::{
            ChannelAuthenticationScheme, SaslMessage, SaslMessageType,
            sasl_authentication_service_client::SaslAuthenticationServiceClient,
        },
        version::{
            GetServiceVersionPRequest, GetServiceVersionPResponse, ServiceType,
            service_version_client_service_client::ServiceVersionClientServiceClient,
        },
    },
};
use std::{fmt, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

/// Largest answer accepted, in bytes: what Alluxio's own clients accept (`alluxio.user.network.rpc.max.inbound.
/// message.size`). A listing comes in messages of 10,000 files, about 12 MB, beyond gRPC's usual 4 MB.
pub(crate) const MAX_MESSAGE: usize = 100 << 20;

/// Bytes that a server may send ahead of us, per stream and per connection. They bound what a slow reader of a listing
/// holds beside the message in hand; a megabyte keeps a fast network busy.
const WINDOW: u32 = 1 << 20;

/// Alluxio cuts clients off that ping more often than every 30 s (`*.network.permit.keepalive.time`).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(45);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// A channel whose calls carry the id under which it authenticated.
pub(crate) type Service = InterceptedService<Channel, ChannelId>;

/// Adds `channel-id` to every call; nothing where the server wants no authentication.
#[derive(Debug, Clone)]
pub(crate) struct ChannelId(Option<AsciiMetadataValue>);

impl Interceptor for ChannelId {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(id) = &self.0 {
            request.metadata_mut().insert("channel-id", id.clone());
        }
        Ok(request)
    }
}

pub(crate) struct Connection {
    server: String,
    service: Service,
    _session: Option<Session>,
}

/// Both directions of the SASL stream; dropping either ends the authentication.
struct Session {
    _requests: mpsc::Sender<SaslMessage>,
    _answers: Streaming<SaslMessage>,
}

impl Connection {
    /// Connects, authenticates, and makes sure that `kind` is served here, within [`Config::connect_timeout`].
    pub(crate) async fn open(server: &str, kind: ServiceType, config: &Config) -> Result<Connection, Error> {
        let unreachable = |source| Error::Unreachable { server: server.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .map_err(|_| Error::InvalidArgument { message: format!("{server:?} is no host:port") })?
            .connect_timeout(config.connect_timeout)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(false);
        let connecting = async {
            let channel = endpoint.connect().await.map_err(|error| unreachable(error.into()))?;
            let (id, session) = authenticate(channel.clone(), server, &config.user).await?;
            let service = InterceptedService::new(channel, ChannelId(id));
            let connection = Connection { server: server.to_owned(), service, _session: session };
            // A standby master may accept connections (alluxio.standby.master.grpc.enabled) and answer some calls itself:
            // GetWorkerInfoList with an empty list.
            match connection.version(kind).await {
                Ok(_) => Ok(connection),
                Err(status) => Err(Error::from_status(status, server, None)),
            }
        };
        let limit = config.connect_timeout;
        timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no connection within {limit:?}").into())))
    }

    /// `host:port`.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    /// The least that a server can be asked.
    pub(crate) async fn version(
        &self,
        kind: ServiceType,
    ) -> Result<Response<GetServiceVersionPResponse>, Status> {
        let request = GetServiceVersionPRequest { service_type: Some(kind.into()) };
        ServiceVersionClientServiceClient::new(self.service()).get_service_version(request).await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

/// SASL with mechanism PLAIN, as Alluxio's SIMPLE scheme wants it. A server configured as NOSASL does not have the
/// service.
async fn authenticate(
    channel: Channel,
    server: &str,
    user: &str,
) -> Result<(Option<AsciiMetadataValue>, Option<Session>), Error> {
    let refused =
        |message: &str| Error::Unauthenticated { server: server.to_owned(), message: message.to_owned() };
    let id = Uuid::new_v4().to_string();
    let header = AsciiMetadataValue::try_from(id.as_str())
        .map_err(|_| Error::Protocol { message: "channel id is not ascii".to_owned() })?;
    let first = SaslMessage {
        message_type: Some(SaslMessageType::Challenge.into()),
        message: Some(format!("\0{user}\0noPassword").into_bytes()),
        client_id: Some(id),
        authentication_scheme: Some(ChannelAuthenticationScheme::Simple.into()),
        channel_ref: Some(concat!("alluxio-client/", env!("CARGO_PKG_VERSION")).to_owned()),
    };
    let (requests, outgoing) = mpsc::channel(1);
    requests.try_send(first).map_err(|_| refused("the handshake could not start"))?;

    let mut client = SaslAuthenticationServiceClient::new(channel);
    let mut answers = match client.authenticate(ReceiverStream::new(outgoing)).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Ok((None, None)),
        Err(status) => return Err(Error::from_status(status, server, None)),
    };
    match answers.message().await {
        Ok(Some(answer)) if answer.message_type() == SaslMessageType::Success => {
            Ok((Some(header), Some(Session { _requests: requests, _answers: answers })))
        }
        Ok(Some(_)) => Err(refused("it asks for more than SIMPLE authentication")),
        Ok(None) => Err(refused("it ended the handshake")),
        Err(status) if status.code() == Code::Unimplemented => Ok((None, None)),
        Err(status) => Err(Error::from_status(status, server, None)),
    }
}
