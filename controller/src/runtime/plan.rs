//! What an AlluxioRuntime needs next: a pure function of what was observed.

use jiff::Timestamp;

use super::{erasure::Written, wish::Wish};
use crate::api::{AlluxioRuntimeStatus, MirroredStatus, Phase, PreloadSpec, PreloadWish};
use crate::preload::status::Notice;

/// What the cluster's schema of AlluxioRuntime can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Schema {
    /// The cluster has no AlluxioRuntimes.
    #[default]
    Missing,
    /// Fluid's own: our fields are dropped, annotations carry them.
    Stock,
    /// Fluid's with our fields. Fluid must fill a status before anybody may write into it.
    Patched,
    /// Ours, without Fluid: StatefulSets say whether a cluster is ready.
    Standalone,
}

/// The Preload that has the name of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The runtime is its owner.
    pub owned: bool,
    pub deleting: bool,
    pub spec: PreloadSpec,
    pub phase: Phase,
    pub percent: Option<i32>,
    pub message: Option<String>,
}

/// Everything that a plan depends on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    pub deleting: bool,
    pub schema: Schema,
    pub wish: Wish,
    /// spec.data.preload as it is.
    pub spec: Option<&'a PreloadWish>,
    /// As an annotation has it.
    pub recorded: Option<PreloadWish>,
    pub status: Option<&'a AlluxioRuntimeStatus>,
    /// Annotation preload.dev/status.
    pub annotated: Option<&'a str>,
    pub child: Option<Child>,
    pub written: Option<&'a Written>,
    pub now: Timestamp,
}

/// What a runtime shows of its Preload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    pub status: MirroredStatus,
    /// Such as `42%`; empty without figures, and in an annotation.
    pub progress: String,
}

/// What to do about the Preload.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Step {
    #[default]
    Keep,
    Create(Box<PreloadSpec>),
    Update(Box<PreloadSpec>),
    Delete,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub step: Step,
    /// Keep spec.data.preload in an annotation, before Fluid erases it.
    pub record: Option<PreloadWish>,
    /// Write it into the status, or on a stock Fluid into the annotation.
    pub mirror: Option<Mirror>,
    pub notice: Option<Notice>,
    pub again_at: Option<Timestamp>,
}

/// The next steps for a runtime.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let child = observed.child.as_ref();
    let foreign = child.is_some_and(|child| !child.owned);
    let step = match (&observed.wish, child) {
        (_, Some(child)) if !child.owned || child.deleting => Step::Keep,
        (_, Some(_)) if observed.deleting => Step::Delete,
        (Wish::Load(spec), Some(child)) if child.spec != **spec => Step::Update(spec.clone()),
        (Wish::Load(spec), None) if !observed.deleting => Step::Create(spec.clone()),
        (Wish::Disabled, Some(_)) => Step::Delete,
        // An invalid wish leaves what was loaded before in peace.
        (Wish::Load(_) | Wish::Disabled | Wish::Invalid { .. }, _) => Step::Keep,
    };
    if observed.deleting {
        return Plan { step, ..Plan::default() };
    }
    let record = match observed.schema {
        // An enabled wish is as good as recorded: its Preload has it.
        Schema::Patched => {
            let default = observed.recorded.is_none();
            observed
                .spec
                .filter(|spec| observed.recorded.as_ref() != Some(spec) && !(default && spec.enabled))
                .cloned()
        }
        Schema::Missing | Schema::Stock | Schema::Standalone => None,
    };
    let wanted = mirror(observed);
    let mut plan = Plan { step, record, ..Plan::default() };
    let Some(current) = current(observed) else { return plan };
    if current == wanted {
        return plan;
    }
    let due = observed.written.map_or(observed.now, |written| written.due(&wanted));
    if due > observed.now {
        plan.again_at = Some(due);
        return plan;
    }
    let erased = current.status == MirroredStatus::Unset
        && observed.written.is_some_and(|written| written.mirror.status == wanted.status);
    if current.status != wanted.status && !erased {
        plan.notice = Some(notice(observed, &wanted, foreign));
    }
    plan.mirror = Some(wanted);
    plan
}

/// What the runtime should show.
fn mirror(observed: &Observed<'_>) -> Mirror {
    let child = observed.child.as_ref().filter(|child| child.owned);
    let status = match (&observed.wish, child.map(|child| child.phase)) {
        (Wish::Invalid { .. }, _) => MirroredStatus::Failed,
        (_, None | Some(Phase::Pending)) => MirroredStatus::NotStarted,
        (_, Some(Phase::Loading)) => MirroredStatus::DisLoading,
        (_, Some(Phase::Loaded)) => MirroredStatus::Loaded,
        // On its way out because it was disabled: its cancellation is what was asked for.
        (Wish::Disabled, Some(Phase::Cancelled)) => MirroredStatus::NotStarted,
        (_, Some(Phase::Failed | Phase::Cancelled)) => MirroredStatus::Failed,
    };
    let percent = child.and_then(|child| child.percent).filter(|_| observed.schema != Schema::Stock);
    Mirror { status, progress: percent.map_or_else(String::new, |percent| format!("{percent}%")) }
}

/// What the runtime shows now; None: nothing can be written yet.
fn current(observed: &Observed<'_>) -> Option<Mirror> {
    let status = observed.status;
    match observed.schema {
        Schema::Missing => None,
        Schema::Stock => {
            let status = match observed.annotated {
                Some("NotStarted") => MirroredStatus::NotStarted,
                Some("DisLoading") => MirroredStatus::DisLoading,
                Some("Loaded") => MirroredStatus::Loaded,
                Some("Failed") => MirroredStatus::Failed,
                Some(_) | None => MirroredStatus::Unset,
            };
            Some(Mirror { status, progress: String::new() })
        }
        Schema::Patched if status.is_none_or(|status| status.value_file.is_none()) => None,
        Schema::Patched | Schema::Standalone => Some(Mirror {
            status: status.and_then(|status| status.preload_status).unwrap_or_default(),
            progress: status.and_then(|status| status.preload_progress.clone()).unwrap_or_default(),
        }),
    }
}

fn notice(observed: &Observed<'_>, wanted: &Mirror, foreign: bool) -> Notice {
    let said = observed.child.as_ref().and_then(|child| child.message.clone());
    let note = match &observed.wish {
        Wish::Invalid { message } => message.clone(),
        Wish::Load(spec) if foreign => {
            format!(
                "a Preload {} exists that this runtime does not own; delete or rename it",
                spec.runtime_ref.name
            )
        }
        Wish::Load(spec) => {
            format!("{}: {}", spec.path, said.as_deref().unwrap_or("waiting for the cluster"))
        }
        Wish::Disabled => "the preload is disabled".to_owned(),
    };
    let warning = foreign || wanted.status == MirroredStatus::Failed;
    Notice { warning, reason: format!("Preload{:?}", wanted.status), note }
}

#[cfg(test)]
mod tests;
