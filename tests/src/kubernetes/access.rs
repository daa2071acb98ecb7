//! Who may talk to a control plane: its authority, its keys, and kubeconfig files. Asks no server.

use super::{lan, part};
use crate::certificates::{Authority, Identity};
use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The group that RBAC lets do everything.
const ADMINISTRATORS: &str = "system:masters";

/// Keys and certificates of one control plane. They stay the same when the API server is started again, so
/// tokens stay valid.
#[derive(Debug)]
pub(crate) struct Access {
    /// Signs the API server's certificate and those of its clients.
    pub(crate) authority: Authority,
    pub(super) server: Identity,
    /// Signs the tokens of ServiceAccounts.
    pub(super) tokens: Identity,
    directory: PathBuf,
    url: String,
}

impl Access {
    pub(super) fn new(sandbox: &Sandbox, nodes: bool) -> Result<Self> {
        let directory = sandbox.folder("access")?;
        let authority = Authority::new(&directory)?;
        let host = part::host(sandbox);
        let mut names = vec![host.as_str()];
        if nodes {
            names.extend([lan::ADDRESS, part::SERVICE_ADDRESS, "kubernetes.default.svc"]);
        }
        let server = authority.identity(&names)?;
        let tokens = authority.identity(&[])?;
        let url = format!("https://{}", part::address(sandbox, part::Part::ApiServer));
        Ok(Self { authority, server, tokens, directory, url })
    }

    /// For the kubelets, which ask for it before they let the API server in.
    pub(super) fn kubelet_client(&self) -> Result<Identity> {
        self.authority.client("kube-apiserver-kubelet-client", ADMINISTRATORS)
    }

    /// A kubeconfig file for a user of that name who may do everything.
    pub(crate) fn administrator(&self, user: &str) -> Result<PathBuf> {
        self.write(user, &self.url, &self.credentials(user, ADMINISTRATORS)?, "default")
    }

    /// A kubeconfig file for a user on a node; it may do what RBAC says of the two names.
    pub(crate) fn on_node(&self, user: &str, group: &str) -> Result<PathBuf> {
        let url = format!("https://{}:{}", lan::ADDRESS, part::API_SERVER_PORT);
        let stem = format!("{}-on-node", user.replace(':', "-"));
        self.write(&stem, &url, &self.credentials(user, group)?, "default")
    }

    fn credentials(&self, user: &str, group: &str) -> Result<Value> {
        let identity = self.authority.client(user, group)?;
        Ok(json!({ "client-certificate": identity.certificate, "client-key": identity.key }))
    }

    /// A kubeconfig file with these credentials; where a caller names no namespace it is this one.
    pub(super) fn kubeconfig(&self, stem: &str, credentials: &Value, namespace: &str) -> Result<PathBuf> {
        self.write(stem, &self.url, credentials, namespace)
    }

    fn write(&self, stem: &str, url: &str, credentials: &Value, namespace: &str) -> Result<PathBuf> {
        let cluster = json!({ "server": url, "certificate-authority": self.authority.certificate() });
        let context = json!({ "cluster": "test", "user": "test", "namespace": namespace });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": credentials }],
            "contexts": [{ "name": "test", "context": context }],
            "current-context": "test",
        });
        let path = self.directory.join(format!("{stem}.kubeconfig"));
        fs::write(&path, kubeconfig.to_string()).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// A client of whoever the kubeconfig file is for. It belongs to the runtime that makes it.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let name = kubeconfig.display();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {name}"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.with_context(|| format!("understand {name}"))?;
    kube::Client::try_from(config).with_context(|| format!("make a client for {name}"))
}
