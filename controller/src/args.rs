//! Flags and environment, checked and turned into types.

mod injection;
mod webhook;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use injection::{InjectionArgs, Quantity};
pub use webhook::{Listen, WebhookArgs};

use crate::{
    credentials::Keeper,
    lease::LeaseConfig,
    preload::{gates::Discovery, reconcile::Settings},
    sidecar::{Access, Files, Trust},
};

/// Keeps Preload and AlluxioRuntime resources loaded.
#[derive(Debug, Parser)]
#[command(name = "preload-controller", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile until SIGTERM
    Run(Box<Run>),
    /// Add the sidecar to YAML from stdin: Pods, StatefulSets and their like, and Lists of them
    ///
    /// Only where the pods have the label role=alluxio-master; everything else is printed as it is. Tells on
    /// stderr what it has done. Exits with 1 if there is nothing to do.
    Inject(Box<Inject>),
    /// Print a CRD, or the patch of Fluid's, as YAML
    Crd {
        /// Which one
        #[arg(value_enum, default_value_t = Document::Preload)]
        document: Document,
    },
}

#[derive(Debug, Args)]
pub struct Inject {
    /// Namespace of what names none: the ports of hosts' networks depend on it
    #[arg(long, short, default_value = "default", value_parser = namespace)]
    pub namespace: String,
    #[command(flatten)]
    pub injection: InjectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// Preload; every cluster needs it
    Preload,
    /// AlluxioRuntime, for clusters without Fluid; never where Fluid is, whose CRD has the same name
    AlluxioRuntime,
    /// JSON patch that adds our fields to Fluid's CRD: kubectl patch crd alluxioruntimes.data.fluid.io
    /// --type=json --patch-file
    FluidPatch,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Serve only these namespaces (a,b,...), whatever their labels [default: all; AlluxioRuntimes only
    /// where the namespace has the label preload.dev/enabled=true]
    #[arg(long, env = "PRELOAD_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub namespace: Vec<String>,
    /// Everything is looked at again after this time, even if nothing happened
    #[arg(long, env = "PRELOAD_RESYNC", default_value = "10m", value_parser = duration)]
    pub resync: Duration,
    /// Objects of one kind that are reconciled at once; 0: no limit
    #[arg(long, env = "PRELOAD_CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
    /// How long the deletion of a Preload waits for its load to be cancelled
    #[arg(long, env = "PRELOAD_CANCEL_TIMEOUT", default_value = "1m", value_parser = duration)]
    pub cancel_timeout: Duration,
    /// TCP address of /livez, /readyz and /metrics (plain HTTP), such as 0.0.0.0:29702
    #[arg(long, env = "PRELOAD_ADMIN_LISTEN", default_value = "0.0.0.0:29702")]
    pub admin_listen: SocketAddr,
    /// How log lines look
    #[arg(long, env = "PRELOAD_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, such as info or preload_controller=debug
    #[arg(long, env = "PRELOAD_LOG", default_value = "info")]
    pub log: String,
    #[command(flatten)]
    pub sidecar: SidecarArgs,
    #[command(flatten)]
    pub lease: LeaseArgs,
    #[command(flatten)]
    pub webhook: WebhookArgs,
    #[command(flatten)]
    pub injection: InjectionArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sidecars")]
pub struct SidecarArgs {
    /// Port of a sidecar whose pod has no annotation
    #[arg(long, env = "PRELOAD_SIDECAR_PORT", default_value_t = 29700, value_parser = clap::value_parser!(u16).range(1..))]
    pub sidecar_port: u16,
    /// Annotation of the master's pod that names the port of its sidecar
    #[arg(long, env = "PRELOAD_SIDECAR_PORT_ANNOTATION", default_value = "preload.dev/sidecar-port")]
    pub sidecar_port_annotation: String,
    /// Each master StatefulSet gets a certificate and tokens in a Secret, and new ones after this time
    #[arg(long, env = "PRELOAD_ROTATE_CREDENTIALS", default_value = "30d", value_parser = duration)]
    pub rotate_credentials: Duration,
    /// Instead of those Secrets: authority of the sidecars' certificates, which must name
    /// STATEFULSET.NAMESPACE.preload.dev (PEM)
    #[arg(long, env = "PRELOAD_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show to sidecars (PEM)
    #[arg(long, env = "PRELOAD_TLS_CERT", requires_all = ["tls_key", "tls_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "PRELOAD_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File with the bearer token for sidecars; read again for every call
    #[arg(long, env = "PRELOAD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Instead of those Secrets: no TLS, and no token but that of --token-file
    #[arg(long, env = "PRELOAD_ALLOW_INSECURE", conflicts_with = "tls_ca")]
    pub allow_insecure: bool,
    /// Send the token without TLS: whoever sees the packets has it
    #[arg(long, env = "PRELOAD_ALLOW_PLAINTEXT_TOKEN", requires = "token_file")]
    pub allow_plaintext_token: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaseArgs {
    /// Name of the Lease; the Role must name it, too
    #[arg(long, env = "PRELOAD_LEASE_NAME", default_value = "preload-controller")]
    pub lease_name: String,
    /// Its namespace [default: that of the pod or the kubeconfig]
    #[arg(long, env = "PRELOAD_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// After this time without a renewal another replica takes over
    #[arg(long, env = "PRELOAD_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// Name of this replica [default: the host's, with a random suffix]
    #[arg(long, env = "PRELOAD_IDENTITY")]
    pub identity: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Run {
    /// Each once, in the order given; empty: all.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let mut all = Vec::new();
        for namespace in &self.namespace {
            if !all.contains(namespace) {
                all.push(namespace.clone());
            }
        }
        all
    }

    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            discovery: Discovery {
                default_port: self.sidecar.sidecar_port,
                injected_only: self.own_files().is_none(),
            },
            port_annotation: self.sidecar.sidecar_port_annotation.clone(),
            deletion_patience: self.cancel_timeout,
            resync: self.resync,
        }
    }

    /// Whether the operator brings the credentials for sidecars, or wants none.
    #[must_use]
    pub fn own_files(&self) -> Option<Files> {
        let sidecar = &self.sidecar;
        let wanted = sidecar.tls_ca.is_some() || sidecar.token_file.is_some() || sidecar.allow_insecure;
        wanted.then(|| Files {
            ca: sidecar.tls_ca.clone(),
            identity: sidecar.tls_cert.clone().zip(sidecar.tls_key.clone()),
            token: sidecar.token_file.clone(),
            allow_plaintext_token: sidecar.allow_plaintext_token,
        })
    }

    /// `keeper`: what is used unless the operator wants something else.
    #[must_use]
    pub fn access(&self, keeper: &Arc<Keeper>) -> Access {
        Access::new(self.own_files().map_or_else(|| Trust::Managed(keeper.clone()), Trust::Files))
    }

    /// `namespace`: where the lease lies unless a flag says otherwise.
    #[must_use]
    pub fn lease(&self, namespace: &str) -> LeaseConfig {
        let unique = || {
            let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
            format!(
                "{}-{:08x}",
                host.as_deref().unwrap_or("preload-controller"),
                uuid::Uuid::new_v4().as_fields().0
            )
        };
        LeaseConfig {
            name: self.lease.lease_name.clone(),
            namespace: self.lease.lease_namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            identity: self.lease.identity.clone().unwrap_or_else(unique),
            duration: self.lease.lease_duration,
        }
    }
}

/// RFC 1123 label, as the API server demands it.
fn namespace(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c != '-');
    if text.len() <= 63 && text.chars().all(allowed) && ends(text.chars().next()) && ends(text.chars().last())
    {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no name of a namespace; give names such as a,b, of lower case letters, digits and -"
    ))
}

/// Of a second at least: everything that takes one of these is told in seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "give 1s or more, such as 15s, 10m or 1h";
    let span: jiff::Span = text.parse().map_err(|_| wanted.to_owned())?;
    let duration =
        span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wanted.to_owned())?;
    Duration::try_from(duration)
        .ok()
        .filter(|d| *d >= Duration::from_secs(1))
        .ok_or_else(|| wanted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_below_a_second_are_refused() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for text in ["0s", "500ms", "-1h", "soon", ""] {
            assert!(duration(text).unwrap_err().contains("1s or more"), "{text}");
        }
    }

    #[test]
    fn namespaces_are_names_and_each_is_served_once() {
        let run = |list: &str| match Cli::try_parse_from([
            "preload-controller",
            "run",
            &format!("--namespace={list}"),
        ]) {
            Ok(Cli { command: Command::Run(run) }) => Ok(run.namespaces()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(run("a,b-1,a"), Ok(vec!["a".to_owned(), "b-1".to_owned()]));
        for bad in ["", "a, b", "A", "-a", "a-", "a_b"] {
            assert!(run(bad).is_err_and(|error| error.contains("such as a,b")), "{bad:?}");
        }
    }

    #[test]
    fn certificates_come_in_pairs() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from(["preload-controller", "run"].iter().chain(arguments)).map(drop)
        };
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--tls-cert", "c"]).is_err());
        assert!(parse(&["--tls-cert", "c", "--tls-key", "k"]).is_err());
        assert!(parse(&["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"]).is_ok());
        assert!(parse(&["--sidecar-port", "0"]).is_err());
    }
}
