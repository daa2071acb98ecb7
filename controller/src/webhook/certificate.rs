//! Where the server's certificate comes from: made by the root of all credentials, or read from files.

use std::{fmt, fs, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use super::ServingCertificate;
use crate::credentials::{Issued, Root};

/// Of a certificate that the root makes.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Between two looks at the files. A Secret that changes takes the kubelet a minute anyway.
const LOOK: Duration = Duration::from_secs(5);

/// `NAME.NAMESPACE` of the Service in front of the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    pub name: String,
    pub namespace: String,
}

impl ServiceName {
    /// What clients in the cluster call it.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        ["svc", "svc.cluster.local"].map(|end| format!("{}.{}.{end}", self.name, self.namespace)).into()
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = |part: &str| {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            (1..=63).contains(&part.len()) && part.chars().all(allowed)
        };
        match text.split_once('.') {
            Some((name, namespace)) if label(name) && label(namespace) => {
                Ok(Self { name: name.to_owned(), namespace: namespace.to_owned() })
            }
            _ => {
                Err("give NAME.NAMESPACE of the Service, such as preload-controller.preload-system"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Publishes a certificate of the root, and a new one whenever the root changes and in good time. Never ends.
pub async fn from_root(
    mut roots: watch::Receiver<Option<Arc<Root>>>,
    names: Vec<String>,
    sender: watch::Sender<Option<Arc<ServingCertificate>>>,
) {
    loop {
        let root = roots.borrow_and_update().clone();
        if let Some(root) = root {
            match root.issue(&names, VALIDITY, Timestamp::now()) {
                Ok(Issued { certificate, key }) => {
                    let made = ServingCertificate {
                        chain_pem: certificate,
                        key_pem: key,
                        ca_pem: root.authorities(),
                    };
                    sender.send_replace(Some(Arc::new(made)));
                }
                Err(error) => tracing::error!(%error, "no certificate for the webhook"),
            }
        }
        tokio::select! {
            changed = roots.changed() => if changed.is_err() {
                // The process is stopping; what was published serves until then.
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep(VALIDITY / 3) => {}
        }
    }
}

/// Publishes what is in the files, now and whenever it changes; both are read, and checked, as one.
pub async fn from_files(
    (certificate, key): (PathBuf, PathBuf),
    sender: watch::Sender<Option<Arc<ServingCertificate>>>,
) {
    let mut told = None;
    loop {
        match read(&certificate, &key) {
            Ok(read) => {
                told = None;
                sender.send_if_modified(|current| {
                    let changed = current.as_deref() != Some(&read);
                    if changed {
                        *current = Some(Arc::new(read));
                    }
                    changed
                });
            }
            // Rotation writes one after the other: what was read before stays.
            Err(problem) => {
                if told.as_ref() != Some(&problem) {
                    tracing::warn!("{problem}; looking again every {LOOK:?}");
                    told = Some(problem);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<ServingCertificate, String> {
    let read = |flag: &str, path: &PathBuf| {
        fs::read_to_string(path).map_err(|error| format!("--{flag} {}: {error}", path.display()))
    };
    let found = ServingCertificate {
        chain_pem: read("webhook-cert", certificate)?,
        key_pem: read("webhook-key", key)?,
        ca_pem: String::new(),
    };
    super::server::configuration(&found)
        .map_err(|error| format!("--webhook-cert {} and --webhook-key: {error}", certificate.display()))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::{names, server::configuration};

    #[test]
    fn names_of_services_and_addresses() {
        let service: ServiceName = "preload-controller.preload-system".parse().unwrap();
        assert_eq!(service.to_string(), "preload-controller.preload-system");
        let named =
            ["preload-controller.preload-system.svc", "preload-controller.preload-system.svc.cluster.local"];
        assert_eq!(names(&service, [0, 0, 0, 0].into()), named);
        assert_eq!(names(&service, [127, 1, 2, 3].into()).last().unwrap(), "127.1.2.3");
        for bad in ["", "a", "a.", ".b", "A.b", "a.b.c"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let root = Root::generate(Timestamp::now()).unwrap();
        let made = || {
            let Issued { certificate, key } =
                root.issue(&["a".to_owned()], VALIDITY, Timestamp::now()).unwrap();
            ServingCertificate { chain_pem: certificate, key_pem: key, ca_pem: root.authorities() }
        };
        let (one, two) = (made(), made());
        assert!(configuration(&one).is_ok());
        assert!(configuration(&ServingCertificate { key_pem: two.key_pem, ..one.clone() }).is_err());
        assert!(configuration(&ServingCertificate { chain_pem: String::new(), ..one.clone() }).is_err());
        assert!(!format!("{one:?}").contains("PRIVATE"), "the key is shown");
    }
}
