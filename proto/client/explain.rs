//! Turns a gRPC status and its google.rpc details into what a person needs: what, where, next step.

use std::{error::Error, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What a status says, taken apart. Texts come from the server: escape them before a terminal sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub code: Code,
    /// The server's words; for a connection that failed, down to the first cause.
    pub message: String,
    /// ErrorInfo: a stable reason for programs, and what belongs to it.
    pub reason: Option<String>,
    pub facts: Vec<(String, String)>,
    /// BadRequest: field and what is wrong with it.
    pub fields: Vec<(String, String)>,
    /// RetryInfo: trying again helps after this time.
    pub retry_after: Option<Duration>,
    /// See [`is_unreachable`].
    pub unreachable: bool,
}

impl Explanation {
    pub fn of(status: &Status) -> Self {
        let info = status.get_details_error_info();
        let mut facts: Vec<_> =
            info.iter().flat_map(|i| &i.metadata).map(|(k, v)| (k.clone(), v.clone())).collect();
        facts.sort();
        let fields = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
        Self {
            code: status.code(),
            message: message(status),
            reason: info.map(|i| i.reason).filter(|r| !r.is_empty()),
            facts,
            fields: fields.into_iter().map(|f| (f.field, f.description)).collect(),
            retry_after: status.get_details_retry_info().and_then(|r| r.retry_delay),
            unreachable: is_unreachable(status),
        }
    }

    /// What the caller can do now.
    pub fn next_step(&self) -> String {
        let step = match self.code {
            // The sidecar itself said so, and when to come back.
            _ if self.unreachable && self.retry_after.is_some() => return self.later(),
            _ if self.unreachable => "check the address, and that the sidecar is running; then try again",
            Code::InvalidArgument | Code::OutOfRange => "correct the request",
            Code::NotFound => "list the loads to see which exist",
            Code::AlreadyExists => "use another id, or the same spec as before",
            Code::FailedPrecondition => "mend what the message names, then try again",
            Code::ResourceExhausted => return self.later(),
            Code::Unauthenticated => "give a token or a client certificate that the sidecar accepts",
            Code::PermissionDenied => "ask for the right to do this",
            Code::Unimplemented => "leave this wish out, or use a newer sidecar",
            Code::Aborted | Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded => "try again",
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => "look into the log of the sidecar",
        };
        step.to_owned()
    }

    fn later(&self) -> String {
        match self.retry_after {
            Some(after) => format!("try again in {} s", after.as_secs_f64().ceil()),
            None => "try again later".to_owned(),
        }
    }

    /// Everything that the message does not say, one fact a line, the next step last.
    pub fn lines(&self) -> Vec<String> {
        let reason = self.reason.iter().map(|r| format!("reason: {r}"));
        let facts = self.facts.iter().map(|(key, value)| format!("{key}: {value}"));
        let told = |(_, problem): &&(String, String)| !self.message.contains(problem);
        let fields =
            self.fields.iter().filter(told).map(|(field, problem)| format!("field {field}: {problem}"));
        reason.chain(facts).chain(fields).chain([format!("next: {}", self.next_step())]).collect()
    }
}

/// No answer came: the connection failed or broke, or the sidecar says that it is stopping.
///
/// A status that the transport made has a source; one that the server sent has none.
pub fn is_unreachable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) || status.source().is_some()
}

fn message(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // tonic wraps each cause into one that only says this.
        if text != "transport error" && !message.contains(&text) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
        source = cause.source();
    }
    if message.is_empty() { status.code().description().to_owned() } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn all_details_become_lines_with_the_next_step_last() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "INVALID_SPEC",
            "preload.dev",
            HashMap::from([("store_uid".to_owned(), "77".to_owned())]),
        );
        details.set_bad_request(vec![FieldViolation::new("spec.path", "must begin with /")]);
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        let explanation = Explanation::of(&status);
        assert_eq!(explanation.message, "the request is not valid");
        assert_eq!(
            explanation.lines(),
            [
                "reason: INVALID_SPEC",
                "store_uid: 77",
                "field spec.path: must begin with /",
                "next: correct the request",
            ]
        );
    }

    #[test]
    fn what_the_message_says_is_not_said_again() {
        let fields = ErrorDetails::with_bad_request(vec![FieldViolation::new("load_id", "is too long")]);
        let status = Status::with_error_details(Code::InvalidArgument, "load_id is too long", fields);
        assert_eq!(Explanation::of(&status).lines(), ["next: correct the request"]);
    }

    #[test]
    fn retry_info_says_when() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "queue is full", details);
        assert_eq!(Explanation::of(&status).lines(), ["next: try again in 2 s"]);
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
        let status = Status::with_error_details(Code::Unavailable, "a worker is silent", details);
        assert_eq!(Explanation::of(&status).lines(), ["next: try again in 5 s"]);
    }

    #[test]
    fn details_that_cannot_be_read_do_no_harm() {
        let status = Status::with_details(Code::Internal, "", b"\xff\xff\xff".to_vec().into());
        let explanation = Explanation::of(&status);
        assert_eq!(explanation.message, Code::Internal.description());
        assert_eq!(explanation.lines(), ["next: look into the log of the sidecar"]);
    }

    #[test]
    fn causes_are_appended_once() {
        let cause = std::io::Error::other("connection refused");
        let mut status = Status::unavailable("tcp connect error");
        status.set_source(std::sync::Arc::new(cause));
        assert!(is_unreachable(&status));
        assert_eq!(Explanation::of(&status).message, "tcp connect error: connection refused");
    }
}
