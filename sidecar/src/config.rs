//! Flags and environment, checked and turned into types.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::{alluxio::AlluxioConfig, engine::memory::Heap, manager::Limits};

/// Where the admin port is when nobody says.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 29701);

/// Preloads data into Alluxio, beside its master.
#[derive(Debug, Parser)]
#[command(name = "preload-sidecar", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the preload API until SIGTERM
    Serve(Box<Serve>),
    /// Copy this executable to DIR/preload-sidecar
    Install(Install),
    /// Ask a running sidecar whether it is ready; exit 0 or 1
    Healthcheck(Healthcheck),
    /// Run a command that ends when stdin does
    #[command(hide = true)]
    Supervise(Supervise),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// TCP address of the gRPC API; other than loopback it needs TLS and authentication
    #[arg(long, env = "PRELOAD_LISTEN", default_value = "127.0.0.1:29700")]
    pub listen: SocketAddr,
    /// Also serve gRPC, without TLS or token, on this Unix socket (mode 0600)
    #[arg(long, env = "PRELOAD_UNIX_SOCKET")]
    pub unix_socket: Option<PathBuf>,
    /// TCP address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(long, env = "PRELOAD_ADMIN_LISTEN", default_value_t = ADMIN_LISTEN)]
    pub admin_listen: SocketAddr,
    /// Directory of the durable job store; must survive a restart of the container
    #[arg(long, env = "PRELOAD_STATE_DIR", default_value = "/var/lib/alluxio-preload")]
    pub state_dir: PathBuf,
    /// How log lines look
    #[arg(long, env = "PRELOAD_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, such as info or preload_sidecar=debug,alluxio_command=debug
    #[arg(long, env = "PRELOAD_LOG", default_value = "info")]
    pub log: String,
    /// Never end but by a signal: say on the admin port and in the log what is wrong, and try again
    #[arg(long, env = "PRELOAD_STAY_UP", value_parser = clap::builder::FalseyValueParser::new())]
    pub stay_up: bool,
    #[command(flatten)]
    pub alluxio: AlluxioArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub security: SecurityArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Alluxio")]
pub struct AlluxioArgs {
    /// Alluxio's launcher script [default: $ALLUXIO_HOME/bin/alluxio, else from PATH, else /opt/alluxio/bin/alluxio]
    #[arg(long, env = "PRELOAD_ALLUXIO")]
    pub alluxio: Option<PathBuf>,
    /// Masters as HOST:PORT,... [default: from `alluxio getConf`]
    #[arg(long, env = "PRELOAD_ALLUXIO_MASTER", value_delimiter = ',')]
    pub alluxio_master: Vec<String>,
    /// Job masters as HOST:PORT,... [default: from `alluxio getConf`; with --alluxio-master: port 20001 beside it]
    #[arg(long, env = "PRELOAD_ALLUXIO_JOB_MASTER", value_delimiter = ',')]
    pub alluxio_job_master: Vec<String>,
    /// User for Alluxio [default: alluxio.security.login.username, else the user of this process]
    #[arg(long, env = "PRELOAD_ALLUXIO_USER")]
    pub alluxio_user: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Loads that run at once; one by distributedLoad has a JVM of its own (up to 512 MiB of heap)
    #[arg(long, env = "PRELOAD_MAX_RUNNING", default_value_t = Limits::default().running,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub max_running: usize,
    /// Loads that wait behind those; more are refused
    #[arg(long, env = "PRELOAD_MAX_QUEUED", default_value_t = Limits::default().queued)]
    pub max_queued: usize,
    /// How long finished loads are remembered
    #[arg(long, env = "PRELOAD_RETENTION", default_value = "30d", value_parser = duration)]
    pub retention: Duration,
    /// How many finished loads are remembered
    #[arg(long, env = "PRELOAD_RETAINED", default_value_t = Limits::default().retained)]
    pub retained: usize,
    /// A distributedLoad that makes no progress for this long is stopped, and what it left undone is loaded natively
    #[arg(long, env = "PRELOAD_STALL_AFTER", default_value = "15m", value_parser = patience)]
    pub stall_after: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityArgs {
    /// Directory with tls.crt and tls.key, and tokens (one a line) or client-ca.crt or both, as a Secret is mounted;
    /// may be filled later, and is read again when it changes
    #[arg(long, env = "PRELOAD_CREDENTIALS", value_name = "DIR",
          conflicts_with_all = ["tls_cert", "tls_key", "tls_client_ca", "token_file"])]
    pub credentials: Option<PathBuf>,
    /// Certificate chain of the TCP listener (PEM); this and the files below are read again when they change
    #[arg(long, env = "PRELOAD_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "PRELOAD_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Clients with a certificate of this authority are let in (PEM)
    #[arg(long, env = "PRELOAD_TLS_CLIENT_CA", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Clients that send a line of this file as bearer token are let in
    #[arg(long, env = "PRELOAD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve on any address without TLS or authentication
    #[arg(long, env = "PRELOAD_ALLOW_INSECURE")]
    pub allow_insecure: bool,
}

#[derive(Debug, Args)]
pub struct Install {
    /// Where to; is made when it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct Healthcheck {
    /// Admin address of the sidecar
    #[arg(long, env = "PRELOAD_ADMIN_LISTEN", default_value_t = ADMIN_LISTEN)]
    pub admin: SocketAddr,
    /// Ask only whether the process answers, not whether it accepts loads
    #[arg(long)]
    pub live: bool,
}

#[derive(Debug, Args)]
pub struct Supervise {
    #[arg(long, default_value_t = 5)]
    pub grace_seconds: u64,
    #[arg(last = true, required = true)]
    pub command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Flags that contradict each other. The operator corrects them.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error(
        "--listen {0} is not a loopback address: give --credentials, or --tls-cert and --tls-key, and \
         --token-file or --tls-client-ca, or say --allow-insecure"
    )]
    Exposed(SocketAddr),
    #[error("{flag} {address:?} has no port; give HOST:PORT")]
    Address { flag: &'static str, address: String },
}

impl Serve {
    /// Refuses what would expose the API, and addresses without a port.
    pub fn check(&self) -> Result<(), ConfigError> {
        let security = &self.security;
        let authenticated = security.token_file.is_some() || security.tls_client_ca.is_some();
        let secured = security.credentials.is_some() || (security.tls_cert.is_some() && authenticated);
        if !self.listen.ip().is_loopback() && !secured && !security.allow_insecure {
            return Err(ConfigError::Exposed(self.listen));
        }
        let lists = [
            ("--alluxio-master", &self.alluxio.alluxio_master),
            ("--alluxio-job-master", &self.alluxio.alluxio_job_master),
        ];
        for (flag, addresses) in lists {
            let portless = |a: &&String| {
                a.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            };
            if let Some(address) = addresses.iter().find(portless) {
                return Err(ConfigError::Address { flag, address: address.clone() });
            }
        }
        Ok(())
    }

    /// `heap`: of each command.
    #[must_use]
    pub fn alluxio_config(&self, heap: Heap) -> AlluxioConfig {
        AlluxioConfig {
            script: self.alluxio.alluxio.clone(),
            masters: self.alluxio.alluxio_master.clone(),
            job_masters: self.alluxio.alluxio_job_master.clone(),
            user: self.alluxio.alluxio_user.clone(),
            work_directory: self.state_dir.join("work"),
            heap,
        }
    }
}

impl LimitArgs {
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            running: self.max_running,
            queued: self.max_queued,
            retention: self.retention,
            retained: self.retained,
            stall_after: self.stall_after,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "give a duration such as 30d, 12h or 90s".to_owned())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|e| e.to_string())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

/// Of a second at least: progress is not told more often.
fn patience(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err("give 1s or more, such as 15m".to_owned()),
        enough => Ok(enough),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Serve {
        let all = ["preload-sidecar", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_serve_loopback_only() {
        let serve = serve(&[]);
        assert_eq!(serve.check(), Ok(()));
        assert!(serve.listen.ip().is_loopback() && serve.admin_listen.ip().is_loopback());
        assert_eq!(serve.limits.limits().retention, Duration::from_secs(30 * 24 * 3600));
    }

    #[test]
    fn an_exposed_address_needs_tls_and_authentication() {
        let open = ["--listen", "0.0.0.0:1"];
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        let exposed = Err(ConfigError::Exposed("0.0.0.0:1".parse().unwrap()));
        assert_eq!(serve(&open).check(), exposed);
        assert_eq!(serve(&[&open[..], &tls].concat()).check(), exposed);
        assert_eq!(serve(&[&open[..], &["--token-file", "t"]].concat()).check(), exposed);
        assert_eq!(serve(&[&open[..], &tls, &["--token-file", "t"]].concat()).check(), Ok(()));
        assert_eq!(serve(&[&open[..], &tls, &["--tls-client-ca", "a"]].concat()).check(), Ok(()));
        assert_eq!(serve(&[&open[..], &["--allow-insecure"]].concat()).check(), Ok(()));
        assert_eq!(serve(&[&open[..], &["--credentials", "d"]].concat()).check(), Ok(()));
        let both = ["preload-sidecar", "serve", "--credentials", "d", "--token-file", "t"];
        assert!(Cli::try_parse_from(both).unwrap_err().to_string().contains("cannot be used with"));
    }

    #[test]
    fn addresses_need_ports() {
        let error = serve(&["--alluxio-master", "m0:19998,m1"]).check().unwrap_err();
        assert_eq!(error.to_string(), "--alluxio-master \"m1\" has no port; give HOST:PORT");
    }
}
