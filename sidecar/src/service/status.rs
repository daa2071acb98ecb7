//! Errors as gRPC statuses with google.rpc details: one exhaustive match.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert::reason_to_wire;
use crate::{
    job::{Job, SpecError, State},
    manager::ManagerError,
    store::StoreError,
};

/// Domain of ErrorInfo: reasons are stable within it.
const DOMAIN: &str = "preload.dev";

/// When to try again after a full queue: loads take seconds at least.
const QUEUE_RETRY: Duration = Duration::from_secs(5);
/// When to try again after a check that could not judge: workers and masters come back within seconds.
const CHECK_RETRY: Duration = Duration::from_secs(5);
/// When to try again after a fault of the store that may pass.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Also in `/readyz`.
pub(crate) const OPENING: &str = "the store is being opened; call again";

pub(super) fn of_field(error: &SpecError) -> Status {
    let details = ErrorDetails::with_bad_request_violation(error.field, error.problem.clone());
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

pub(super) fn of_manager(error: &ManagerError) -> Status {
    let message = error.to_string();
    match error {
        ManagerError::Conflict { fields, .. } => {
            let mut details = info("LOAD_EXISTS", [("fields", fields.join(","))]);
            for field in fields {
                details.add_bad_request_violation(
                    *field,
                    "differs from the load that exists; use another load_id",
                );
            }
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        ManagerError::QueueFull { .. } => {
            let mut details = info("QUEUE_FULL", []);
            details.set_retry_info(Some(QUEUE_RETRY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        ManagerError::NotFound { store, .. } => {
            let details = info("LOAD_NOT_FOUND", [("store_uid", store.to_string())]);
            Status::with_error_details(Code::NotFound, message, details)
        }
        ManagerError::StillLive { .. } => {
            Status::with_error_details(Code::FailedPrecondition, message, info("LOAD_IS_LIVE", []))
        }
        ManagerError::NotLoaded { id, state } => {
            let what_to_do = match state {
                State::Stale => "it is withdrawn already; start a load with another id",
                State::Failed | State::Cancelled => "start a load with another id",
                _ => "it verifies itself; wait for it with WatchLoad",
            };
            let state = format!("{state:?}").to_ascii_uppercase();
            let message = format!("load {id} is {state}, and only LOADED is checked: {what_to_do}");
            let details = info("LOAD_NOT_LOADED", [("state", state)]);
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        ManagerError::NotJudged { shut, .. } => {
            let mut details = info(reason_to_wire(Some(shut.reason)).as_str_name(), []);
            details.set_retry_info(Some(CHECK_RETRY));
            Status::with_error_details(Code::Unavailable, message, details)
        }
        ManagerError::ListChanged => of_field(&SpecError { field: "page_token", problem: message }),
        ManagerError::Stopping => stopping(),
        ManagerError::NotDriven { .. } => {
            let mut details = info("LOAD_NOT_DRIVEN", []);
            details.set_retry_info(Some(STORE_RETRY));
            Status::with_error_details(Code::Unavailable, message, details)
        }
        ManagerError::Store(error) => of_store(error),
        ManagerError::Internal(_) | ManagerError::Panicked => Status::internal(message),
    }
}

/// The sidecar stops: the same call succeeds when it is back.
pub(super) fn stopping() -> Status {
    let mut details = info("STOPPING", []);
    details.set_retry_info(Some(STORE_RETRY));
    Status::with_error_details(Code::Unavailable, "the sidecar is stopping; call again", details)
}

/// The store is slow beyond measure. Whether the call was carried out is not known.
pub(super) fn outcome_unknown(patience: Duration) -> Status {
    let mut details = info("OUTCOME_UNKNOWN", []);
    details.set_retry_info(Some(STORE_RETRY));
    let message = format!(
        "the store did not answer within {} s, and may still do what was asked; ask again with the same load_id",
        patience.as_secs()
    );
    Status::with_error_details(Code::Unavailable, message, details)
}

/// A check goes on, but its caller has waited long enough.
pub(super) fn still_checking(patience: Duration) -> Status {
    let mut details = info("STILL_CHECKING", []);
    details.set_retry_info(Some(CHECK_RETRY));
    let message = format!(
        "the check took longer than {} s and goes on; call VerifyLoad again, or WatchLoad with follow",
        patience.as_secs()
    );
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The sidecar has just started.
pub(super) fn opening() -> Status {
    let mut details = info("STARTING", []);
    details.set_retry_info(Some(STORE_RETRY));
    Status::with_error_details(Code::Unavailable, OPENING, details)
}

/// A part of a request is here, and the rest does not come.
pub(crate) fn not_whole(patience: Duration) -> Status {
    let message = format!("the request was not whole within {} s; send it again", patience.as_secs());
    let mut details = info("REQUEST_LATE", []);
    details.set_retry_info(Some(STORE_RETRY));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// As many requests as the sidecar keeps are here in part.
pub(crate) fn too_many_halves() -> Status {
    let mut details = info("REQUESTS_IN_PART", []);
    details.set_retry_info(Some(STORE_RETRY));
    let message = "too many requests are here in part; try again";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// As much metadata as the sidecar keeps is here.
pub(crate) fn too_much_metadata() -> Status {
    let mut details = info("METADATA_FULL", []);
    details.set_retry_info(Some(STORE_RETRY));
    let message = "too many calls with more than 2 KiB of metadata are under way; try again, or send less";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// As many answers as the sidecar keeps wait to be taken.
pub(crate) fn answers_wait() -> Status {
    let mut details = info("ANSWERS_WAIT", []);
    details.set_retry_info(Some(STORE_RETRY));
    let message = "too many answers wait to be taken; try again, or ask for a smaller page";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The store cannot be used at all; `reason` says why and what to do.
pub(crate) fn no_store(reason: &str) -> Status {
    let mut details = info("STORE_UNUSABLE", []);
    details.set_retry_info(Some(QUEUE_RETRY));
    Status::with_error_details(Code::FailedPrecondition, reason, details)
}

fn of_store(error: &StoreError) -> Status {
    let message = error.to_string();
    if let StoreError::Damaged { .. } = error {
        return Status::with_error_details(Code::DataLoss, message, info("LOAD_DAMAGED", []));
    }
    if let StoreError::Panicked = error {
        return Status::internal(message);
    }
    let mut details = info("STORE_UNUSABLE", []);
    if error.is_transient() {
        details.set_retry_info(Some(STORE_RETRY));
    }
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// `Load.error` of a load that ended without success.
pub(super) fn of_job(job: &Job) -> Option<tonic_types::Status> {
    let code = match job.state {
        State::Cancelled => Code::Cancelled,
        State::Failed => {
            use crate::job::Reason;
            match job.reason {
                Some(Reason::PathNotFound) => Code::NotFound,
                Some(Reason::TimedOut | Reason::GateTimedOut) => Code::DeadlineExceeded,
                Some(Reason::CommandMissing) => Code::Unimplemented,
                Some(Reason::Incomplete) => Code::DataLoss,
                Some(_) | None => Code::Internal,
            }
        }
        _ => return None,
    };
    let reason = reason_to_wire(job.reason).as_str_name();
    let status = Status::with_error_details(code, job.message.clone(), info(reason, []));
    prost::Message::decode(status.details()).ok()
}

fn info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::job::LoadId;

    fn id() -> LoadId {
        LoadId::try_from("a".to_owned()).unwrap()
    }

    #[test]
    fn a_start_passes() {
        let status = opening();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_error_details().retry_info().unwrap().retry_delay, Some(STORE_RETRY));
    }

    #[test]
    fn a_conflict_names_the_fields() {
        let status =
            of_manager(&ManagerError::Conflict { id: id(), fields: vec!["spec.path", "spec.replicas"] });
        assert_eq!(status.code(), Code::AlreadyExists);
        assert!(status.message().contains("spec.path, spec.replicas"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 2);
    }

    #[test]
    fn not_found_tells_the_store() {
        let status = of_manager(&ManagerError::NotFound { id: id(), store: Uuid::nil() });
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["store_uid"], Uuid::nil().to_string());
    }

    #[test]
    fn a_full_queue_says_when_to_retry() {
        let status = of_manager(&ManagerError::QueueFull { live: 68 });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
}
