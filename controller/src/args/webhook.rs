//! Flags of the admission webhook.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;

use crate::webhook::ServiceName;

#[derive(Debug, Args)]
#[command(next_help_heading = "Admission webhook")]
pub struct WebhookArgs {
    /// TCP address of the webhook that adds sidecars to masters' pods (HTTPS), or off
    #[arg(long, env = "PRELOAD_WEBHOOK_LISTEN", default_value = "0.0.0.0:29703")]
    pub webhook_listen: Listen,
    /// NAME.NAMESPACE of the Service in front of it, for the certificate
    #[arg(long, env = "PRELOAD_WEBHOOK_SERVICE", default_value = "preload-controller.preload-system")]
    pub webhook_service: ServiceName,
    /// Keep the caBundle of this MutatingWebhookConfiguration equal to the authority of our certificate
    #[arg(long, env = "PRELOAD_WEBHOOK_CONFIGURATION", conflicts_with = "webhook_cert")]
    pub webhook_configuration: Option<String>,
    /// Certificate of your own, such as cert-manager makes them (PEM); read again when it changes. Whoever makes
    /// it writes the caBundle
    #[arg(long, env = "PRELOAD_WEBHOOK_CERT", requires = "webhook_key")]
    pub webhook_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "PRELOAD_WEBHOOK_KEY", requires = "webhook_cert")]
    pub webhook_key: Option<PathBuf>,
}

impl WebhookArgs {
    /// It serves, with a certificate that we make.
    #[must_use]
    pub fn is_certified_by_us(&self) -> bool {
        self.webhook_listen.0.is_some() && self.webhook_cert.is_none()
    }
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| "give IP:PORT such as 0.0.0.0:29703, or off".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_off() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!("127.0.0.1:1".parse(), Ok(Listen(Some(([127, 0, 0, 1], 1).into()))));
        assert!("29703".parse::<Listen>().unwrap_err().contains("or off"));
    }
}
