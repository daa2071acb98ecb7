//! What is done with a pod that is being created.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use serde_json::Value;
use tokio::{sync::OnceCell, time::timeout};

use super::{
    EnsureCredentials, Ports, Source,
    image::{Image, Images},
    version::has_native_sidecars,
};
use crate::injection::{
    self, Injection, LeftAlone, Options, Owner, Placement, PortRange, credentials_owner, is_shared, place,
};

/// Making credentials takes one write; the API server waits 5 s for all of it.
const CREDENTIALS: Duration = Duration::from_secs(2);

/// When sidecars are init containers that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NativeSidecar {
    /// Where the API server is of 1.29 or newer
    Auto,
    Always,
    Never,
}

/// Decides on pods. Changes nothing in the cluster, but through `credentials`.
#[derive(Debug)]
pub struct Injector {
    client: ClientBox,
    /// Its image and whether it is native are found out.
    options: Options,
    images: Images,
    native: NativeSidecar,
    native_known: OnceCell<bool>,
    range: PortRange,
    ports: Ports,
    credentials: Arc<dyn EnsureCredentials>,
    namespaces: Vec<String>,
}

/// A client, whose type has no Debug.
#[derive(Clone)]
struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// A pod as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a Value,
    pub(super) dry_run: bool,
}

/// Why a pod has no sidecar afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Declined {
    /// As it should be.
    Unchanged(LeftAlone),
    /// It should have one.
    Failed(String),
}

impl Injector {
    /// `namespaces`: those that are served; none: all.
    #[must_use]
    pub fn new(
        client: Client,
        (options, native): (Options, NativeSidecar),
        source: Source,
        (range, ports): (PortRange, Ports),
        credentials: Arc<dyn EnsureCredentials>,
        namespaces: Vec<String>,
    ) -> Self {
        Self {
            client: ClientBox(client),
            options,
            images: Images::new(source),
            native,
            native_known: OnceCell::new(),
            range,
            ports,
            credentials,
            namespaces,
        }
    }

    /// The pod with its sidecar.
    pub(super) async fn inject(&self, arrival: Arrival<'_>) -> Result<Injection, Declined> {
        let Arrival { namespace, pod, dry_run } = arrival;
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(|served| served == namespace) {
            return Err(Declined::Unchanged(LeftAlone::NotServed));
        }
        injection::judge(pod)?;
        let options = self.options().await.map_err(Declined::Failed)?;
        let owner = Owner::of_pod(namespace, pod);
        let port = self.port(pod, &owner.port_key, dry_run).await?;
        let placement = Placement { secret: &owner.secret, port, claims: &[] };
        let mut injection = injection::inject(pod, placement, &options)?;
        match credentials_owner(pod).map(|owner| serde_json::from_value::<OwnerReference>(owner.clone())) {
            Some(Ok(_)) if dry_run => {}
            Some(Ok(set)) => self.ensure(namespace, &set).await,
            Some(Err(_)) | None => injection.notes.push(format!(
                "no StatefulSet controls the pod, so nobody makes the Secret {}: make it yourself",
                owner.secret
            )),
        }
        Ok(injection)
    }

    async fn options(&self) -> Result<Options, String> {
        let Image { name, pull_policy } = self.images.get(&self.client.0).await?.clone();
        Ok(Options {
            image: name,
            pull_policy: self.options.pull_policy.or(pull_policy),
            native: self.is_native().await,
            ..self.options.clone()
        })
    }

    async fn is_native(&self) -> bool {
        let ask = || async {
            let version = self.client.0.apiserver_version().await?;
            Ok::<_, kube::Error>(has_native_sidecars(&version))
        };
        match self.native {
            NativeSidecar::Always => true,
            NativeSidecar::Never => false,
            NativeSidecar::Auto => match self.native_known.get_or_try_init(ask).await {
                Ok(native) => *native,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the API server does not say its version; the sidecar is a plain container"
                    );
                    false
                }
            },
        }
    }

    async fn port(&self, pod: &Value, key: &str, dry_run: bool) -> Result<u16, Declined> {
        if !is_shared(pod) {
            return Ok(place(pod, self.range, &BTreeSet::new(), key)?);
        }
        let choose = |taken: &BTreeSet<u16>| place(pod, self.range, taken, key);
        match self.ports.choose(&self.client.0, key, dry_run, choose).await {
            Ok(chosen) => Ok(chosen?),
            Err(error) => {
                Err(Declined::Failed(format!("which ports are taken cannot be found out: {error}")))
            }
        }
    }

    /// Without credentials the sidecar waits; the master must not.
    async fn ensure(&self, namespace: &str, set: &OwnerReference) {
        let problem = match timeout(CREDENTIALS, self.credentials.ensure(namespace, set)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done after {CREDENTIALS:?}"),
        };
        tracing::warn!(namespace, stateful_set = set.name, problem, "no credentials for the sidecar yet");
    }
}

impl From<LeftAlone> for Declined {
    fn from(reason: LeftAlone) -> Self {
        if reason.is_fault() { Self::Failed(reason.to_string()) } else { Self::Unchanged(reason) }
    }
}
