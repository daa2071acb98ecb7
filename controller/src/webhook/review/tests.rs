//! Reviews against an API server that must not be asked.

use std::sync::Mutex;

use axum::http::Request;
use futures_util::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::client::Body as ClientBody;
use serde_json::json;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    injection::{Options, PORT, Resources, SIDECAR},
    webhook::{EnsureCredentials, NativeSidecar, Ports, Source},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Notes who asks, and does what it is told.
#[derive(Debug)]
struct Credentials {
    asked: Mutex<Vec<String>>,
    does: fn() -> Result<(), Failure>,
}

impl EnsureCredentials for Credentials {
    fn ensure<'a>(
        &'a self,
        namespace: &'a str,
        set: &'a OwnerReference,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.asked.lock().unwrap().push(format!("{namespace}/{}", set.name));
        Box::pin(async { (self.does)() })
    }
}

struct World {
    credentials: Arc<Credentials>,
    routes: Router,
    metrics: Metrics,
}

impl World {
    fn new(source: Source, does: fn() -> Result<(), Failure>) -> Self {
        let unreachable = service_fn(|_: Request<ClientBody>| async {
            Err::<axum::http::Response<ClientBody>, _>(std::io::Error::other("no API server"))
        });
        let client = kube::Client::new(unreachable, "default");
        let options = Options {
            image: String::new(),
            pull_policy: None,
            native: true,
            resources: Resources::default(),
            arguments: Vec::new(),
            version: "0".to_owned(),
        };
        let credentials = Arc::new(Credentials { asked: Mutex::default(), does });
        let range = "27000-27001".parse().unwrap();
        let injector = Injector::new(
            client,
            (options, NativeSidecar::Always),
            source,
            (range, Ports::new(vec![crate::stores::Scope::All])),
            credentials.clone(),
            vec!["served".to_owned()],
        );
        let metrics = Metrics::default();
        Self { credentials, routes: routes(Arc::new(injector), metrics.clone()), metrics }
    }

    /// The response, and its patch.
    async fn review(&self, request: Value) -> (Value, Value) {
        let review =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let request = Request::post("/mutate").body(Body::from(review.to_string())).unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = to_bytes(response.into_body(), MAX_BODY).await.unwrap();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let response = review["response"].take();
        assert!(response["uid"] == "u" && response["allowed"] == true, "{response}");
        let patch = response["patch"].as_array().map(|bytes| {
            bytes.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect::<Vec<_>>()
        });
        let patch = patch.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        (response, patch)
    }

    fn asked(&self) -> Vec<String> {
        self.credentials.asked.lock().unwrap().clone()
    }
}

fn master() -> Value {
    json!({
        "metadata": {
            "name": "m-0", "labels": { "role": "alluxio-master" },
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "m", "uid": "s", "controller": true },
            ],
        },
        "spec": { "containers": [{ "name": "alluxio-master", "image": "alluxio", "unknown": 1 }] },
    })
}

fn request(pod: Value, more: Value) -> Value {
    let mut request = json!({
        "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "resource": { "group": "", "version": "v1", "resource": "pods" },
        "name": "m-0", "namespace": "served", "operation": "CREATE", "userInfo": {}, "object": pod,
    });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn flag() -> Source {
    Source::Flag("image".to_owned())
}

#[tokio::test]
async fn a_second_review_changes_nothing() {
    let world = World::new(flag(), || Ok(()));
    let (_, patch) = world.review(request(master(), json!({}))).await;
    let mut pod = master();
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
    assert_eq!(pod["spec"]["initContainers"][1]["name"], SIDECAR);
    assert_eq!(pod["spec"]["containers"][0]["unknown"], 1);
    let (response, patch) = world.review(request(pod, json!({}))).await;
    assert!(patch.is_null() && response.get("warnings").is_none(), "{response}");
    assert_eq!(world.asked(), ["served/m"]);
    let page = world.metrics.render();
    for result in ["injected", "unchanged"] {
        assert!(page.contains(&format!("injections_total{{result=\"{result}\"}} 1")), "{page}");
    }
}

#[tokio::test]
async fn a_dry_run_asks_for_no_credentials() {
    let world = World::new(flag(), || Ok(()));
    let (_, patch) = world.review(request(master(), json!({ "dryRun": true }))).await;
    assert!(patch.is_array() && world.asked().is_empty(), "{patch}");
}

#[tokio::test]
async fn without_credentials_the_sidecar_waits() {
    let world = World::new(flag(), || Err("no".into()));
    let (_, patch) = world.review(request(master(), json!({}))).await;
    assert!(patch.is_array() && world.asked() == ["served/m"], "{patch}");
}

/// A defect of ours costs the sidecar, not the pod.
#[tokio::test]
async fn a_panic_is_a_warning() {
    let world = World::new(flag(), || panic!("of the test"));
    let (response, patch) = world.review(request(master(), json!({}))).await;
    assert!(
        patch.is_null() && response["warnings"][0].as_str().unwrap().contains("of the test"),
        "{response}"
    );
}

#[tokio::test]
async fn what_cannot_be_found_out_is_a_warning() {
    let image = World::new(Source::Unknown, || Ok(()));
    let (response, patch) = image.review(request(master(), json!({}))).await;
    assert!(
        patch.is_null() && response["warnings"][0].as_str().unwrap().contains("--sidecar-image"),
        "{response}"
    );
    let ports = World::new(flag(), || Ok(()));
    let mut pod = master();
    pod["spec"]["hostNetwork"] = json!(true);
    let (response, patch) = ports.review(request(pod.clone(), json!({}))).await;
    assert!(patch.is_null() && response["warnings"][0].as_str().unwrap().contains("ports"), "{response}");
    // A port of the pod's own wish needs nobody to be asked.
    pod["metadata"]["annotations"] = json!({ PORT: "31000" });
    let (_, patch) = ports.review(request(pod, json!({}))).await;
    assert!(patch.is_array(), "{patch}");
}

#[tokio::test]
async fn only_pods_that_are_created_where_we_serve() {
    let world = World::new(flag(), || Ok(()));
    for other in [
        json!({ "namespace": "other" }),
        json!({ "operation": "UPDATE" }),
        json!({ "operation": "DELETE", "object": null }),
        json!({ "subResource": "status" }),
        json!({ "kind": { "group": "", "version": "v1", "kind": "Service" } }),
    ] {
        let (response, patch) = world.review(request(master(), other)).await;
        assert!(patch.is_null() && response.get("warnings").is_none(), "{response}");
    }
    assert!(world.asked().is_empty());
}
