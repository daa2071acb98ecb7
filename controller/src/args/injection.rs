//! Flags of the sidecars that are injected, by the webhook and by hand.

use clap::Args;

use crate::{
    injection::{Options, PortRange, PullPolicy, Resources},
    webhook::NativeSidecar,
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Injected sidecars")]
pub struct InjectionArgs {
    /// Image that holds /preload-sidecar [default of run: that of container `controller` of our own pod, which
    /// POD_NAME and POD_NAMESPACE name]
    #[arg(long, env = "PRELOAD_SIDECAR_IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub sidecar_image: Option<String>,
    /// When nodes pull it [default of run: as for our own pod]
    #[arg(long, env = "PRELOAD_SIDECAR_IMAGE_PULL_POLICY")]
    pub sidecar_image_pull_policy: Option<PullPolicy>,
    /// Whether sidecars are init containers that go on, which ends them after the master; inject takes auto for
    /// always, and an API server older than 1.29 needs never
    #[arg(long, env = "PRELOAD_NATIVE_SIDECAR", default_value = "auto")]
    pub native_sidecar: NativeSidecar,
    /// Ports of sidecars on hosts' networks: an even one for gRPC and the next for metrics, each pair used once
    #[arg(long, env = "PRELOAD_HOST_PORTS", default_value = "27000-27999")]
    pub host_ports: PortRange,
    /// CPU that is reserved; none: nothing is said
    #[arg(long, env = "PRELOAD_SIDECAR_CPU_REQUEST", default_value = "100m", value_parser = quantity)]
    pub sidecar_cpu_request: Quantity,
    /// Most CPU; none: no limit
    #[arg(long, env = "PRELOAD_SIDECAR_CPU_LIMIT", default_value = "none", value_parser = quantity)]
    pub sidecar_cpu_limit: Quantity,
    /// Memory that is reserved; none: nothing is said
    #[arg(long, env = "PRELOAD_SIDECAR_MEMORY_REQUEST", default_value = "192Mi", value_parser = quantity)]
    pub sidecar_memory_request: Quantity,
    /// Most memory; of 512Mi Alluxio's command line takes up to 256Mi of heap, of 768Mi 512Mi; none: no limit
    #[arg(long, env = "PRELOAD_SIDECAR_MEMORY_LIMIT", default_value = "512Mi", value_parser = quantity)]
    pub sidecar_memory_limit: Quantity,
    /// One more argument of `preload-sidecar serve`, such as --sidecar-arg=--log=debug; may be repeated
    #[arg(long, allow_hyphen_values = true)]
    pub sidecar_arg: Vec<String>,
}

/// Of resources; none: not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(Option<String>);

impl InjectionArgs {
    /// `image`: where no flag says it.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            image: self.sidecar_image.clone().unwrap_or_default(),
            pull_policy: self.sidecar_image_pull_policy,
            native: self.native_sidecar != NativeSidecar::Never,
            resources: Resources {
                cpu_request: self.sidecar_cpu_request.0.clone(),
                cpu_limit: self.sidecar_cpu_limit.0.clone(),
                memory_request: self.sidecar_memory_request.0.clone(),
                memory_limit: self.sidecar_memory_limit.0.clone(),
            },
            arguments: self.sidecar_arg.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A wrong one would have every pod refused.
fn quantity(text: &str) -> Result<Quantity, String> {
    if text == "none" {
        return Ok(Quantity(None));
    }
    let number = text.trim_end_matches(char::is_alphabetic);
    let digits = number.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let unit = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&&text[number.len()..]);
    if digits && unit && number.matches('.').count() <= 1 {
        return Ok(Quantity(Some(text.to_owned())));
    }
    Err("give a quantity of Kubernetes such as 100m, 2, 256Mi or 1Gi, or none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for good in ["0", "100m", "1.5", "256Mi", "1Gi", "2G"] {
            assert_eq!(quantity(good), Ok(Quantity(Some(good.to_owned()))));
        }
        assert_eq!(quantity("none"), Ok(Quantity(None)));
        for bad in ["", "m", "1.2.3", "1 Gi", "-1", "1gi", ".5", "1.", "1e3"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }
}
