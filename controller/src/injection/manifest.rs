//! Adds the sidecar to the documents of a YAML file, as the webhook would to the pods that they lead to.
//!
//! Invariant: documents that do not get one pass as they are written, comments and all.

use std::collections::BTreeSet;

use serde_json::Value;
use thiserror::Error;

use super::{LeftAlone, Options, Owner, Placement, PortRange, ROLE, inject, items, place, text};

/// Kinds with a template of pods.
const WITH_TEMPLATE: [&str; 4] = ["StatefulSet", "Deployment", "DaemonSet", "ReplicaSet"];

/// The file cannot be worked on. Who wrote it acts.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("document {number} is no YAML: {problem}")]
    Yaml { number: usize, problem: String },
    #[error("{subject}: {reason}")]
    Fault { subject: String, reason: LeftAlone },
    #[error(
        "nothing to inject: no Pod, StatefulSet, Deployment, DaemonSet or ReplicaSet whose pods have the label \
         {}={} and no sidecar",
        ROLE.0, ROLE.1
    )]
    Nothing { report: Vec<String> },
    #[error("cannot write the YAML")]
    Write(#[from] serde_saphyr::ser::Error),
}

/// A file with sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifests {
    pub yaml: String,
    /// A line for everything that has pods: what was done, or why not.
    pub report: Vec<String>,
}

impl Manifests {
    /// `namespace`: of objects that name none.
    pub fn inject(
        yaml: &str,
        namespace: &str,
        range: PortRange,
        options: &Options,
    ) -> Result<Self, ManifestError> {
        let mut work =
            Work { namespace, range, options, taken: BTreeSet::new(), report: Vec::new(), done: 0 };
        let mut out = String::with_capacity(yaml.len() + 4096);
        for (index, document) in documents(yaml).into_iter().enumerate() {
            let Some(mut object) = document.parse(index + 1)? else {
                out.push_str(document.head);
                out.push_str(document.body);
                continue;
            };
            out.push_str(document.head);
            let before = work.done;
            work.object(&mut object)?;
            if work.done == before {
                out.push_str(document.body);
            } else {
                if !document.head.is_empty() && !document.head.ends_with('\n') {
                    out.push('\n');
                }
                out.push_str(&serde_saphyr::to_string(&object)?);
            }
            if !out.ends_with('\n') {
                out.push('\n');
            }
        }
        match work.done {
            0 => Err(ManifestError::Nothing { report: work.report }),
            _ => Ok(Self { yaml: out, report: work.report }),
        }
    }
}

struct Work<'a> {
    namespace: &'a str,
    range: PortRange,
    options: &'a Options,
    /// Ports that were given in this file.
    taken: BTreeSet<u16>,
    report: Vec<String>,
    done: usize,
}

impl Work<'_> {
    fn object(&mut self, object: &mut Value) -> Result<(), ManifestError> {
        let kind = text(object, &["kind"]).unwrap_or_default().to_owned();
        if kind == "List" {
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            return items.into_iter().flatten().try_for_each(|item| self.object(item));
        }
        let in_metadata = |key| text(object, &["metadata", key]);
        let namespace = in_metadata("namespace").unwrap_or(self.namespace).to_owned();
        let name = in_metadata("name").or_else(|| in_metadata("generateName")).unwrap_or_default();
        let subject = format!("{kind} {namespace}/{name}");
        if kind == "Pod" {
            let owner = Owner::of_pod(&namespace, object);
            *object = match self.pod(&subject, object, &owner, &[])? {
                Some(pod) => pod,
                None => return Ok(()),
            };
        } else if WITH_TEMPLATE.contains(&kind.as_str()) {
            let owner = Owner::of_template(&namespace, &kind, name);
            let claims = items(&object["spec"], "volumeClaimTemplates").iter();
            let claims: Vec<_> = claims.filter_map(|claim| text(claim, &["metadata", "name"])).collect();
            if let Some(template) = self.pod(&subject, &object["spec"]["template"], &owner, &claims)? {
                object["spec"]["template"] = template;
            }
        }
        Ok(())
    }

    fn pod(
        &mut self,
        subject: &str,
        pod: &Value,
        owner: &Owner,
        claims: &[&str],
    ) -> Result<Option<Value>, ManifestError> {
        let placed = super::judge(pod).and_then(|()| place(pod, self.range, &self.taken, &owner.port_key));
        let injected = placed.and_then(|port| {
            let placement = Placement { secret: &owner.secret, port, claims };
            Ok((port, inject(pod, placement, self.options)?))
        });
        match injected {
            Ok((port, injection)) => {
                self.done += 1;
                self.taken.extend([port, port + 1]);
                let secret = &owner.secret;
                self.report.push(format!("{subject}: sidecar added (gRPC port {port}, Secret {secret})"));
                self.report.extend(injection.notes.iter().map(|note| format!("{subject}: {note}")));
                Ok(Some(injection.pod))
            }
            Err(reason) if reason.is_fault() => {
                Err(ManifestError::Fault { subject: subject.to_owned(), reason })
            }
            Err(reason) => {
                self.report.push(format!("{subject}: unchanged: {reason}"));
                Ok(None)
            }
        }
    }
}

/// A document as it is written.
struct Document<'a> {
    /// Its marker, if it has one.
    head: &'a str,
    body: &'a str,
    /// Where the body begins, from 1.
    line: usize,
}

impl Document<'_> {
    /// None: there is nothing in it.
    fn parse(&self, number: usize) -> Result<Option<Value>, ManifestError> {
        let lines = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if self.body.lines().all(lines) {
            return Ok(None);
        }
        parse(self.body).map(Some).map_err(|problem| {
            // Once more with as many lines before it as in the file, so that it tells the line of the file.
            let in_place = format!("{}{}", "\n".repeat(self.line - 1), self.body);
            let problem = parse(&in_place).err().unwrap_or(problem).to_string();
            ManifestError::Yaml { number, problem }
        })
    }
}

fn parse(yaml: &str) -> Result<Value, serde_saphyr::Error> {
    let mut options = serde_saphyr::Options::default();
    // `defaultMode: 0644` means to Kubernetes what it says.
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(yaml, options)
}

/// At markers, which nothing but a marker begins a line with.
fn documents(yaml: &str) -> Vec<Document<'_>> {
    let mut all = Vec::new();
    let (mut head, mut start, mut line, mut at) = (0..0, 0, 1, 0);
    for (index, text) in yaml.split_inclusive('\n').enumerate() {
        let end = at + text.len();
        if text.starts_with("---") && text[3..].chars().next().is_none_or(char::is_whitespace) {
            if start > 0 || at > 0 {
                all.push(Document { head: &yaml[head], body: &yaml[start..at], line });
            }
            // What follows a marker on its line, such as an object in braces, belongs to the document.
            let alone = text[3..].trim().is_empty() || text[3..].trim_start().starts_with('#');
            let marker = if alone { end } else { at + 3 };
            (head, start, line) = (at..marker, marker, if alone { index + 2 } else { index + 1 });
        }
        at = end;
    }
    all.push(Document { head: &yaml[head], body: &yaml[start..], line });
    all
}
