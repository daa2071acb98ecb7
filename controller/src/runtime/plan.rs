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
    /// Its namespace asks for preloads.
    pub opted_in: bool,
    pub schema: Schema,
    pub wish: Wish,
    /// spec.data.preload as it is, or as it was before somebody erased it.
    pub spec: Option<&'a PreloadWish>,
    /// Annotation preload.dev/spec.
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

/// Our annotations of a runtime. They are applied together: whatever is left out is taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// preload.dev/status
    pub status: Option<MirroredStatus>,
    /// preload.dev/spec
    pub spec: Option<PreloadWish>,
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
    /// All annotations of the runtime that are ours; None: they are as they should be.
    pub annotations: Option<Annotations>,
    /// Written into the status, or on a stock Fluid with the annotations.
    pub mirror: Option<Mirror>,
    pub notice: Option<Notice>,
    pub again_at: Option<Timestamp>,
}

/// The next steps for a runtime.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let child = observed.child.as_ref();
    let foreign = child.is_some_and(|child| !child.owned);
    if !observed.opted_in && !child.is_some_and(|child| child.owned) {
        return Plan::default();
    }
    let step = match (&observed.wish, child) {
        (_, Some(child)) if !child.owned || child.deleting => Step::Keep,
        (_, Some(_)) if observed.deleting => Step::Delete,
        (Wish::Load(spec), Some(child)) if child.spec != **spec && observed.opted_in => {
            Step::Update(spec.clone())
        }
        (Wish::Load(spec), None) if !observed.deleting && observed.opted_in => Step::Create(spec.clone()),
        (Wish::Disabled, Some(_)) => Step::Delete,
        // An invalid wish leaves what was loaded before in peace.
        (Wish::Load(_) | Wish::Disabled | Wish::Invalid { .. }, _) => Step::Keep,
    };
    if observed.deleting {
        return Plan { step, ..Plan::default() };
    }
    let wanted = mirror(observed);
    let mut plan = Plan { step, ..Plan::default() };
    let stock = observed.schema == Schema::Stock;
    let annotated = observed.annotated.map(read_status);
    let spec = recorded(observed);
    // The status of a stock Fluid is paced below; a leftover of one is taken away.
    let status = if stock { annotated } else { None };
    if spec != observed.recorded || status != annotated {
        plan.annotations = Some(Annotations { status, spec: spec.clone() });
    }
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
    if stock {
        plan.annotations = Some(Annotations { status: Some(wanted.status), spec });
    }
    plan.mirror = Some(wanted);
    plan
}

/// What is kept of spec.data.preload in an annotation: a wish that its Preload does not have, since it is
/// disabled, and what became of such a wish.
fn recorded(observed: &Observed<'_>) -> Option<PreloadWish> {
    let recorded = observed.recorded.as_ref();
    match observed.schema {
        Schema::Patched => {
            observed.spec.filter(|spec| recorded.is_some() || !spec.enabled).or(recorded).cloned()
        }
        Schema::Missing | Schema::Stock | Schema::Standalone => recorded.cloned(),
    }
}

fn read_status(text: &str) -> MirroredStatus {
    match text {
        "NotStarted" => MirroredStatus::NotStarted,
        "DisLoading" => MirroredStatus::DisLoading,
        "Loaded" => MirroredStatus::Loaded,
        "Failed" => MirroredStatus::Failed,
        _ => MirroredStatus::Unset,
    }
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
            let status = observed.annotated.map(read_status).unwrap_or_default();
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
