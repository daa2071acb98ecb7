//! The command line.

mod values;

use crate::exit;
use alluxio_preload_api::{
    client::Address,
    v1::{
        load::State,
        load_spec::{Engine, LoadMetadata},
    },
};
use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Warms the cache of an Alluxio cluster and says when the data is really there.
#[derive(Debug, Parser)]
#[command(name = "preloadctl", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Global {
    /// The sidecar: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(
        long,
        global = true,
        env = "PRELOAD_ADDRESS",
        hide_env_values = true,
        default_value = "127.0.0.1:29700"
    )]
    pub address: Address,
    /// Certificates (PEM) of the authorities that the sidecar's certificate may come from
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate (PEM) of this client
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of this client
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name in the sidecar's certificate, where it is not the host of the address
    #[arg(long, global = true, value_name = "NAME", requires = "tls_ca")]
    pub tls_server_name: Option<String>,
    /// File with the bearer token
    #[arg(long, global = true, value_name = "FILE", env = "PRELOAD_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// Send the token unencrypted to another host, for everyone on the way to read
    #[arg(long, global = true)]
    pub allow_insecure: bool,
    /// What to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Colours; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One object a line, in the JSON form of protobuf
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// `no_color` is the value of NO_COLOR; by its convention an empty one counts as unset.
    pub fn on(self, terminal: bool, no_color: Option<&str>) -> bool {
        match self {
            Self::Auto => terminal && no_color.unwrap_or_default().is_empty(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a load; the same id and the same wish again change nothing
    Start(Start),
    /// Show a load
    Get { id: String },
    /// Follow a load until it has ended
    Watch {
        id: String,
        /// Go on after LOADED, until the load is withdrawn or deleted
        #[arg(long)]
        follow: bool,
    },
    /// List loads, newest first
    List(List),
    /// Cancel a load
    Cancel {
        id: String,
        /// Follow it until it has ended
        #[arg(long)]
        watch: bool,
    },
    /// Check that everything which was loaded is still in the cache
    Verify { id: String },
    /// List the files that are not loaded, and why
    Failures {
        id: String,
        /// Stop after so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Forget a load that has ended
    Delete { id: String },
}

#[derive(Debug, clap::Args)]
pub struct Start {
    /// Absolute Alluxio path of a directory or a file
    pub path: String,
    /// Lower-case letters, digits and dashes, at most 63; without one the sidecar makes one
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub id: Option<String>,
    /// Copies of each block, each on another worker [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: Option<u32>,
    /// What does the work; `auto` takes distributed-load where it can run, else native
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Whether to look for files that Alluxio has not seen: where it never listed, never, or everywhere
    #[arg(long, value_enum, default_value_t = MetadataChoice::Once)]
    pub load_metadata: MetadataChoice,
    /// Wait until so many workers are live; it always waits for as many as there are replicas
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub min_workers: u32,
    /// Load also what fits only when other data is evicted
    #[arg(long)]
    pub allow_evict: bool,
    /// Give up when the load cannot begin for so long, such as 90s or 1h30m [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub wait_timeout: Option<Duration>,
    /// Give up when listing, loading and verifying take longer [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// How often to try what is missing [default: 3]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub max_attempts: u32,
    /// Check again so often whether everything is still in the cache, such as 10m [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub reverify_interval: Option<Duration>,
    /// Bring at most so much into the cache each second, such as 500MB or 1GiB; distributed-load knows no limit
    /// [default: none]
    #[arg(long, value_name = "BYTES", default_value = "0", hide_default_value = true, value_parser = values::bytes)]
    pub max_bytes_per_second: ByteSize,
    /// A label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub labels: Vec<(String, String)>,
    /// Follow the load until it has ended
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, clap::Args)]
pub struct List {
    /// Only loads in this state, such as LOADED; may be given more than once
    #[arg(long = "state", value_name = "STATE", value_parser = values::state)]
    pub states: Vec<State>,
    /// Only this path and those below it
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub path: String,
    /// Only loads with this label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub labels: Vec<(String, String)>,
    /// Stop after so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EngineChoice {
    Auto,
    DistributedLoad,
    Native,
}

impl From<EngineChoice> for Engine {
    fn from(choice: EngineChoice) -> Self {
        match choice {
            EngineChoice::Auto => Self::Unspecified,
            EngineChoice::DistributedLoad => Self::DistributedLoad,
            EngineChoice::Native => Self::Native,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MetadataChoice {
    Once,
    Never,
    Always,
}

impl From<MetadataChoice> for LoadMetadata {
    fn from(choice: MetadataChoice) -> Self {
        match choice {
            MetadataChoice::Once => Self::Once,
            MetadataChoice::Never => Self::Never,
            MetadataChoice::Always => Self::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn colour_follows_the_flag_then_no_color_then_the_terminal() {
        assert!(Color::Auto.on(true, None));
        assert!(Color::Auto.on(true, Some("")));
        assert!(!Color::Auto.on(true, Some("1")));
        assert!(!Color::Auto.on(false, None));
        assert!(Color::Always.on(false, Some("1")));
        assert!(!Color::Never.on(true, None));
    }
}
