//! Logs to stderr: text for people, JSON for collectors.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::LogFormat;

/// Installs the subscriber of this process. The error names a filter that cannot be read.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let accepted = "give a level such as info, or preload_controller=debug";
    let targets: Targets =
        filter.parse().map_err(|error| format!("--log {filter:?}: {error}; {accepted}"))?;
    // It logs as errors what it also returns, and what we log where it matters.
    let targets = targets.with_target("kube_client::client::builder", LevelFilter::OFF);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let installed = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    installed.map_err(|error| error.to_string())
}
