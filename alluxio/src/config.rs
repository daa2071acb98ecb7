//! What a client must know before its first call.

use std::time::Duration;

/// Addresses, identity and time limits of a [`crate::Client`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Masters as `host:port` (port 19998 by default in Alluxio). With several (HA) the one that leads answers.
    pub masters: Vec<String>,
    /// Job masters as `host:port` (port 20001 by default in Alluxio). Empty where no job service runs.
    pub job_masters: Vec<String>,
    /// The user that SIMPLE authentication announces; Alluxio trusts it.
    pub user: String,
    /// Time for one address to accept a connection and authenticate us.
    pub connect_timeout: Duration,
    /// Deadline of every unary call, connecting included.
    pub call_timeout: Duration,
    /// Longest silence within a listing. Alluxio sends nothing while it loads metadata, so this is minutes, not
    /// seconds; a dead peer is found earlier, by HTTP/2 keep-alive.
    pub listing_idle_timeout: Duration,
}

impl Default for Config {
    /// Alluxio's default ports on this host, user `root`, 5 s to connect, 30 s for a call, 10 min for a listing.
    fn default() -> Self {
        Config {
            masters: vec!["127.0.0.1:19998".to_owned()],
            job_masters: vec!["127.0.0.1:20001".to_owned()],
            user: "root".to_owned(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            listing_idle_timeout: Duration::from_secs(600),
        }
    }
}
