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
    /// Deadline of every unary call, connecting included, and longest silence within a listing that loads no metadata, if
    /// that is more than 30 s.
    pub call_timeout: Duration,
    /// Longest silence within a listing that loads metadata. Alluxio sends nothing before the whole tree is loaded
    /// (measured: 213 s for 100,000 new files on a busy machine). It is the limit for a master that hangs; a dead one is
    /// found within a minute, by HTTP/2 keep-alive.
    pub listing_idle_timeout: Duration,
}

impl Default for Config {
    /// Alluxio's default ports on this host, user `root`, 5 s to connect, 30 s for a call, 1 h for a listing that loads metadata.
    fn default() -> Self {
        Config {
            masters: vec!["127.0.0.1:19998".to_owned()],
            job_masters: vec!["127.0.0.1:20001".to_owned()],
            user: "root".to_owned(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            listing_idle_timeout: Duration::from_secs(3600),
        }
    }
}
