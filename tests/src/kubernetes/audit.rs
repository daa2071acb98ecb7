//! The audit log of an API server: what it is told to write, and how it reads.
//!
//! Invariants: every request is there once, when its answer is complete, a watch hence when it ends; the API
//! server writes it itself as soon as it has answered, so it may be a moment later than the answer.

use crate::sandbox::Sandbox;
use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::Deserialize;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// A request that was answered. What it does not have is empty.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// `system:serviceaccount:NAMESPACE:NAME`, or the common name of a certificate.
    pub user: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// API group; that of ConfigMaps and their like is empty.
    pub group: String,
    /// Plural and lower case.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// Of the object or collection.
    pub namespace: String,
    /// Empty where a create leaves the name to the server, and for collections.
    pub name: String,
    /// HTTP status.
    pub code: u16,
    /// When the request came in.
    pub received: MicroTime,
}

pub(super) fn policy(sandbox: &Sandbox) -> PathBuf {
    sandbox.directory().join("audit-policy.json")
}

pub(super) fn log(sandbox: &Sandbox) -> PathBuf {
    sandbox.directory().join("logs/audit.log")
}

/// Everything but what the API server asks itself, once, without bodies.
pub(super) fn write_policy(sandbox: &Sandbox) -> Result<()> {
    let rules = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "omitManagedFields": true,
        "rules": [{ "level": "None", "users": ["system:apiserver"] }, { "level": "Metadata" }],
    });
    fs::write(policy(sandbox), rules.to_string()).context("write the audit policy")
}

/// All lines that are whole; the last may be half written.
pub(super) fn read(sandbox: &Sandbox) -> Result<Vec<AuditEvent>> {
    let text = fs::read_to_string(log(sandbox)).context("read the audit log")?;
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| parse(line).with_context(|| format!("understand the audit log: {line}"))).collect()
}

fn parse(line: &str) -> Result<AuditEvent> {
    let event: Event = serde_json::from_str(line)?;
    let object = event.object_ref;
    Ok(AuditEvent {
        user: event.user.username,
        user_agent: event.user_agent,
        verb: event.verb,
        uri: event.request_uri,
        group: object.api_group,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        code: event.response_status.code,
        received: event.request_received_timestamp,
    })
}

/// `audit.k8s.io/v1`, as far as it is of use.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    #[serde(default)]
    user_agent: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: MicroTime,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}
