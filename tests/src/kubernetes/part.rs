//! The processes of a control plane: their addresses and their command lines. Starts nothing.

use super::access::Access;
use super::{audit, lan};
use crate::sandbox::Sandbox;
use anyhow::Result;
use std::ffi::OsString;
use std::fmt;

/// Last octet of the address that all parts share; below 200 is left to the tests.
const HOST: usize = 252;
const ETCD_PEER_PORT: u16 = 2_380;
pub(super) const API_SERVER_PORT: u16 = 6_443;
/// Addresses of Services, and the one of the API server.
const SERVICES: &str = "10.96.0.0/16";
pub(super) const SERVICE_ADDRESS: &str = "10.96.0.1";
/// What tests without nodes rely on; all controllers would watch, and keep in memory, everything.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,garbage-collector-controller,\
                           namespace-controller,serviceaccount-controller";

/// One process of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Keeps the objects.
    Etcd,
    /// What clients speak to.
    ApiServer,
    /// Only where the options ask for it.
    ControllerManager,
    /// Only where there are nodes.
    Scheduler,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        })
    }
}

/// `HOST:PORT` of a part; those with port 0 listen nowhere.
pub(super) fn address(sandbox: &Sandbox, part: Part) -> String {
    let port = match part {
        Part::Etcd => 2_379,
        Part::ApiServer => API_SERVER_PORT,
        Part::ControllerManager | Part::Scheduler => 0,
    };
    format!("{}:{port}", host(sandbox))
}

/// The address without a port.
pub(super) fn host(sandbox: &Sandbox) -> String {
    sandbox.address(HOST)
}

impl Part {
    /// Arguments of the binary: the part's name, then its own.
    pub(super) fn arguments(self, sandbox: &Sandbox, access: &Access, nodes: bool) -> Result<Vec<OsString>> {
        let mut line = Line(vec![self.to_string().into()]);
        match self {
            Self::Etcd => etcd(&mut line, sandbox),
            Self::ApiServer if nodes => {
                api_server(&mut line, sandbox, access);
                for_nodes(&mut line, access)?;
            }
            Self::ApiServer => {
                api_server(&mut line, sandbox, access);
                alone(&mut line, sandbox);
            }
            Self::ControllerManager => controller_manager(&mut line, access, nodes)?,
            Self::Scheduler => scheduler(&mut line, access)?,
        }
        Ok(line.0)
    }
}

struct Line(Vec<OsString>);

impl Line {
    /// Adds `--name=value`.
    fn flag(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value.into());
        self.0.push(flag);
        self
    }
}

fn etcd(line: &mut Line, sandbox: &Sandbox) {
    let clients = format!("http://{}", address(sandbox, Part::Etcd));
    let peers = format!("http://{}:{ETCD_PEER_PORT}", host(sandbox));
    line.flag("data-dir", sandbox.directory().join("etcd"))
        .flag("listen-client-urls", &clients)
        .flag("advertise-client-urls", &clients)
        .flag("listen-peer-urls", &peers)
        .flag("initial-advertise-peer-urls", &peers)
        .flag("initial-cluster", format!("default={peers}"))
        // Kills of processes lose nothing; a crash of the machine ends the test anyway.
        .flag("unsafe-no-fsync", "true")
        .flag("log-level", "error");
}

fn api_server(line: &mut Line, sandbox: &Sandbox, access: &Access) {
    line.flag("etcd-servers", format!("http://{}", address(sandbox, Part::Etcd)))
        .flag("secure-port", API_SERVER_PORT.to_string())
        .flag("tls-cert-file", &access.server.certificate)
        .flag("tls-private-key-file", &access.server.key)
        .flag("client-ca-file", access.authority.certificate())
        .flag("service-account-issuer", "https://kubernetes.default.svc")
        .flag("service-account-signing-key-file", &access.tokens.key)
        // A certificate stands for the public key in it.
        .flag("service-account-key-file", &access.tokens.certificate)
        .flag("service-cluster-ip-range", SERVICES)
        .flag("allow-privileged", "true")
        .flag("audit-policy-file", audit::policy(sandbox))
        .flag("audit-log-path", audit::log(sandbox))
        // Never rotated.
        .flag("audit-log-maxsize", "0");
}

/// On loopback.
fn alone(line: &mut Line, sandbox: &Sandbox) {
    line.flag("bind-address", host(sandbox))
        // Else it looks for an interface of the machine, and it may not publish a loopback address.
        .flag("advertise-address", host(sandbox))
        .flag("endpoint-reconciler-type", "none")
        .flag("authorization-mode", "RBAC");
}

/// On a machine of its own, at the loopback address too.
fn for_nodes(line: &mut Line, access: &Access) -> Result<()> {
    let kubelet_client = access.kubelet_client()?;
    line.flag("bind-address", "0.0.0.0")
        .flag("advertise-address", lan::ADDRESS)
        .flag("authorization-mode", "Node,RBAC")
        .flag("enable-admission-plugins", "NodeRestriction")
        .flag("kubelet-client-certificate", kubelet_client.certificate)
        .flag("kubelet-client-key", kubelet_client.key)
        .flag("kubelet-preferred-address-types", "InternalIP")
        // It has no kube-proxy: webhooks are called at their pods.
        .flag("enable-aggregator-routing", "true");
    Ok(())
}

fn controller_manager(line: &mut Line, access: &Access, nodes: bool) -> Result<()> {
    // One user for all controllers: a ServiceAccount each, as in production, would only take longer.
    line.flag("kubeconfig", access.administrator("system:kube-controller-manager")?)
        .flag("controllers", if nodes { "*" } else { CONTROLLERS })
        // What pods trust.
        .flag("root-ca-file", access.authority.certificate())
        .flag("leader-elect", "false")
        // It serves nothing.
        .flag("secure-port", "0")
        // The default of 20 requests a second would make tests wait when many objects go at once.
        .flag("kube-api-qps", "500")
        .flag("kube-api-burst", "1000");
    Ok(())
}

fn scheduler(line: &mut Line, access: &Access) -> Result<()> {
    line.flag("kubeconfig", access.administrator("system:kube-scheduler")?)
        .flag("leader-elect", "false")
        // It serves nothing.
        .flag("secure-port", "0");
    Ok(())
}
