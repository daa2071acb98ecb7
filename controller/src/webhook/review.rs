//! `POST /mutate`: admission.k8s.io/v1 in, admission.k8s.io/v1 out.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::FutureExt;
use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};

use super::injector::{Arrival, Declined, Injector};
use crate::metrics::Metrics;

/// etcd keeps no larger object.
const MAX_BODY: usize = 1536 * 1024;
/// Reviews in memory at once: hostile JSON takes thirty times its size, and anybody may send it. Honest ones take
/// milliseconds.
const AT_ONCE: usize = 3;
/// For a body that trickles in.
const READ: Duration = Duration::from_secs(3);
/// Below the time-out of the registration, so that a warning arrives.
const ANSWER: Duration = Duration::from_millis(4500);
/// What the API server passes on; more would be cut off.
const MAX_WARNING: usize = 256;

/// What the handler sees.
#[derive(Clone, Debug)]
struct Context {
    injector: Arc<Injector>,
    metrics: Metrics,
    slots: Arc<Semaphore>,
}

/// The webhook as a service.
pub(crate) fn routes(injector: Arc<Injector>, metrics: Metrics) -> Router {
    Router::new().route("/mutate", post(mutate)).with_state(Context {
        injector,
        metrics,
        slots: Arc::new(Semaphore::new(AT_ONCE)),
    })
}

async fn mutate(State(context): State<Context>, body: Body) -> Response {
    let Ok(Ok(_slot)) = timeout(READ, context.slots.acquire()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once\n").into_response();
    };
    let body = match timeout(READ, to_bytes(body, MAX_BODY)).await {
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body takes too long\n").into_response(),
        Ok(Err(_)) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read, or is too large\n")
                .into_response();
        }
        Ok(Ok(body)) => body,
    };
    let (request, object) = match parse(&body) {
        Ok(parsed) => parsed,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    drop(body);
    let judged = AssertUnwindSafe(decide(&context.injector, &request, &object)).catch_unwind();
    let decision = match timeout(ANSWER, judged).await {
        Ok(Ok(decision)) => decision,
        Ok(Err(panic)) => Err(Declined::Failed(format!("a defect: {}", message(&*panic)))),
        Err(_) => Err(Declined::Failed(format!("not done after {ANSWER:?}"))),
    };
    let (result, response) = answer(&request, &object, decision);
    context.metrics.injection(result);
    match serde_json::to_vec(&response.into_review()) {
        Ok(review) => ([(CONTENT_TYPE, "application/json")], review).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The request, and its object as it came: types would lose fields that they do not know.
fn parse(body: &[u8]) -> Result<(AdmissionRequest<DynamicObject>, Value), String> {
    let mut review: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let mut object = Value::Null;
    if let Some(request) = review.get_mut("request").and_then(Value::as_object_mut) {
        object = request.insert("object".to_owned(), Value::Null).unwrap_or_default();
        request.insert("oldObject".to_owned(), Value::Null);
    }
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_value(review).map_err(|error| format!("no AdmissionReview: {error}"))?;
    if review.types.api_version != "admission.k8s.io/v1" || review.types.kind != "AdmissionReview" {
        return Err("no AdmissionReview of admission.k8s.io/v1".to_owned());
    }
    let request = review.try_into().map_err(|_| "an AdmissionReview without a request".to_owned())?;
    Ok((request, object))
}

async fn decide(
    injector: &Injector,
    request: &AdmissionRequest<DynamicObject>,
    object: &Value,
) -> Result<json_patch::Patch, Declined> {
    let is_pod = request.kind.kind == "Pod" && request.kind.group.is_empty();
    if !is_pod || request.operation != Operation::Create || request.sub_resource.is_some() {
        return Err(Declined::Unchanged(crate::injection::LeftAlone::NotServed));
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let arrival = Arrival { namespace, pod: object, dry_run: request.dry_run };
    let injection = injector.inject(arrival).await?;
    let name = if request.name.is_empty() {
        object["metadata"]["generateName"].as_str()
    } else {
        Some(&*request.name)
    };
    let port = injection.pod["metadata"]["annotations"][crate::injection::PORT].as_str();
    tracing::info!(namespace, pod = name, port, dry_run = request.dry_run, notes = ?injection.notes, "sidecar added");
    Ok(json_patch::diff(object, &injection.pod))
}

fn answer(
    request: &AdmissionRequest<DynamicObject>,
    object: &Value,
    decision: Result<json_patch::Patch, Declined>,
) -> (&'static str, AdmissionResponse) {
    let response = AdmissionResponse::from(request);
    let failed = |problem: String| {
        let name = object["metadata"]["name"].as_str().or(object["metadata"]["generateName"].as_str());
        tracing::warn!(namespace = request.namespace, pod = name, problem, "admitted without a sidecar");
        let mut response = AdmissionResponse::from(request);
        let warning = format!("preload-controller: no sidecar: {problem}");
        response.warnings = Some(vec![warning.chars().take(MAX_WARNING).collect()]);
        ("failed", response)
    };
    match decision {
        Ok(patch) => match response.with_patch(patch) {
            Ok(response) => ("injected", response),
            Err(error) => failed(error.to_string()),
        },
        Err(Declined::Unchanged(reason)) => {
            tracing::debug!(namespace = request.namespace, %reason, "admitted as it is");
            ("unchanged", response)
        }
        Err(Declined::Failed(problem)) => failed(problem),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
