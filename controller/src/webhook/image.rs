//! Which image the init container gets: as a flag says, or that of our own pod.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::sync::OnceCell;

use crate::injection::PullPolicy;

/// Container of our own pod.
const CONTAINER: &str = "controller";

/// Where we run, as the downward API tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    pub name: String,
    pub namespace: String,
}

impl OwnPod {
    /// From POD_NAME and POD_NAMESPACE.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self { name: read("POD_NAME")?, namespace: read("POD_NAMESPACE")? })
    }
}

/// The image, and where it is from.
#[derive(Clone, Debug)]
pub enum Source {
    Flag(String),
    Pod(OwnPod),
    /// Nobody has said it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) pull_policy: Option<PullPolicy>,
}

/// Found once.
#[derive(Debug)]
pub(super) struct Images {
    source: Source,
    found: OnceCell<Image>,
}

impl Images {
    pub(super) fn new(source: Source) -> Self {
        Self { source, found: OnceCell::new() }
    }

    /// The error is for whoever runs the controller.
    pub(super) async fn get(&self, client: &Client) -> Result<&Image, String> {
        let find = || async {
            match &self.source {
                Source::Flag(name) => Ok(Image { name: name.clone(), pull_policy: None }),
                Source::Unknown => {
                    Err("--sidecar-image is not given, and POD_NAME and POD_NAMESPACE are not set, \
                                        so the image of the sidecar is not known"
                        .to_owned())
                }
                Source::Pod(OwnPod { name, namespace }) => {
                    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get(name).await;
                    let pod =
                        pod.map_err(|error| format!("cannot read our own pod {namespace}/{name}: {error}"))?;
                    image_of(&pod).ok_or_else(|| {
                        format!("pod {namespace}/{name} has no container {CONTAINER} with an image; give --sidecar-image")
                    })
                }
            }
        };
        self.found.get_or_try_init(find).await
    }
}

fn image_of(pod: &Pod) -> Option<Image> {
    let containers = &pod.spec.as_ref()?.containers;
    let container = containers.iter().find(|container| container.name == CONTAINER)?;
    let pull_policy = match container.image_pull_policy.as_deref() {
        Some("Always") => Some(PullPolicy::Always),
        Some("IfNotPresent") => Some(PullPolicy::IfNotPresent),
        Some("Never") => Some(PullPolicy::Never),
        _ => None,
    };
    Some(Image { name: container.image.clone()?, pull_policy })
}
