use std::collections::BTreeMap;

use super::*;
use crate::{api::AlluxioRuntimeSpec, runtime::wish::wish};

fn load() -> PreloadSpec {
    match wish("h", &AlluxioRuntimeSpec::default(), &BTreeMap::new(), None) {
        Wish::Load(spec) => *spec,
        other => panic!("{other:?}"),
    }
}

fn child(phase: Phase) -> Child {
    Child { owned: true, deleting: false, spec: load(), phase, percent: None, message: Some("words".into()) }
}

fn observed<'a>(schema: Schema, child: Option<Child>) -> Observed<'a> {
    Observed {
        deleting: false,
        opted_in: true,
        schema,
        wish: Wish::Load(Box::new(load())),
        spec: None,
        recorded: None,
        status: None,
        annotated: None,
        child,
        written: None,
        now: Timestamp::from_second(1_800_000_000).unwrap(),
    }
}

fn filled(status: Option<MirroredStatus>) -> AlluxioRuntimeStatus {
    AlluxioRuntimeStatus { value_file: Some("h-values".into()), preload_status: status, ..Default::default() }
}

#[test]
fn phases_are_mirrored_in_the_words_of_the_runtime() {
    for (phase, status) in [
        (Phase::Pending, MirroredStatus::NotStarted),
        (Phase::Loading, MirroredStatus::DisLoading),
        (Phase::Loaded, MirroredStatus::Loaded),
        (Phase::Failed, MirroredStatus::Failed),
        (Phase::Cancelled, MirroredStatus::Failed),
    ] {
        let plan = plan(&observed(Schema::Standalone, Some(child(phase))));
        assert_eq!(plan.mirror.unwrap().status, status, "{phase:?}");
        assert_eq!(plan.notice.unwrap().reason, format!("Preload{status:?}"));
        assert_eq!(plan.step, Step::Keep);
    }
}

#[test]
fn a_preload_is_made_brought_in_line_and_deleted() {
    let step = |observed: &Observed<'_>| plan(observed).step;
    assert_eq!(step(&observed(Schema::Stock, None)), Step::Create(Box::new(load())));
    let other = Child { spec: PreloadSpec { replicas: 7, ..load() }, ..child(Phase::Loaded) };
    assert_eq!(step(&observed(Schema::Stock, Some(other.clone()))), Step::Update(Box::new(load())));
    let disabled = |child| Observed { wish: Wish::Disabled, ..observed(Schema::Stock, child) };
    assert_eq!(step(&disabled(Some(child(Phase::Loading)))), Step::Delete);
    assert_eq!(step(&disabled(Some(Child { deleting: true, ..child(Phase::Loading) }))), Step::Keep);
    assert_eq!(step(&disabled(None)), Step::Keep);
    let deleting = |child| Observed { deleting: true, ..observed(Schema::Stock, child) };
    assert_eq!(plan(&deleting(Some(child(Phase::Loaded)))), Plan { step: Step::Delete, ..Plan::default() });
    assert_eq!(plan(&deleting(None)), Plan::default());
    // Enabled again while the old one is on its way out: wait for its end.
    assert_eq!(step(&observed(Schema::Stock, Some(Child { deleting: true, ..other }))), Step::Keep);
}

#[test]
fn a_preload_of_somebody_else_is_left_alone() {
    let foreign = Child { owned: false, spec: PreloadSpec { replicas: 7, ..load() }, ..child(Phase::Loaded) };
    for wish in [Wish::Load(Box::new(load())), Wish::Disabled] {
        let plan = plan(&Observed { wish, ..observed(Schema::Stock, Some(foreign.clone())) });
        assert_eq!((plan.step, plan.mirror.unwrap().status), (Step::Keep, MirroredStatus::NotStarted));
    }
}

#[test]
fn disabling_returns_to_not_started_once_the_load_is_gone() {
    let disabled = |child| {
        let now = filled(Some(MirroredStatus::DisLoading));
        let observed = Observed { wish: Wish::Disabled, ..observed(Schema::Standalone, child) };
        plan(&Observed { status: Some(&now), ..observed }).mirror
    };
    assert_eq!(disabled(Some(child(Phase::Loading))), None, "it still loads");
    assert_eq!(disabled(Some(child(Phase::Cancelled))).unwrap().status, MirroredStatus::NotStarted);
    assert_eq!(disabled(None).unwrap().status, MirroredStatus::NotStarted);
}

#[test]
fn a_wish_that_cannot_be_read_is_failed_and_changes_nothing() {
    let wish = Wish::Invalid { message: "annotation preload.dev/path is \"x\"".into() };
    let plan = plan(&Observed { wish, ..observed(Schema::Stock, Some(child(Phase::Loaded))) });
    assert_eq!((plan.step, plan.mirror.unwrap().status), (Step::Keep, MirroredStatus::Failed));
    assert!(plan.notice.unwrap().note.contains("preload.dev/path"));
}

#[test]
fn nothing_is_written_into_a_status_that_fluid_has_not_filled() {
    let empty = AlluxioRuntimeStatus::default();
    for status in [None, Some(&empty)] {
        let observed = observed(Schema::Patched, Some(child(Phase::Loaded)));
        assert_eq!(plan(&Observed { status, ..observed }).mirror, None);
    }
    let status = filled(None);
    let observed = observed(Schema::Patched, Some(child(Phase::Loaded)));
    assert!(plan(&Observed { status: Some(&status), ..observed }).mirror.is_some());
}

#[test]
fn a_stock_fluid_has_it_in_an_annotation() {
    let observed = observed(Schema::Stock, Some(Child { percent: Some(100), ..child(Phase::Loaded) }));
    let mirror = plan(&observed).mirror.unwrap();
    assert_eq!((mirror.status, mirror.progress.as_str()), (MirroredStatus::Loaded, ""));
    assert_eq!(plan(&Observed { annotated: Some("Loaded"), ..observed.clone() }), Plan::default());
    let other = plan(&Observed { annotated: Some("DisLoading"), ..observed.clone() });
    assert_eq!(other.annotations, Some(Annotations { status: Some(MirroredStatus::Loaded), spec: None }));
    assert!(plan(&Observed { annotated: Some("garbage"), ..observed }).mirror.is_some());
}

#[test]
fn the_result_of_a_plan_needs_no_other() {
    for schema in [Schema::Patched, Schema::Standalone] {
        let base = Observed {
            schema,
            ..observed(schema, Some(Child { percent: Some(42), ..child(Phase::Loading) }))
        };
        let empty = filled(None);
        let mirror = plan(&Observed { status: Some(&empty), ..base.clone() }).mirror.unwrap();
        assert_eq!(mirror.progress, "42%");
        let mut status = filled(Some(mirror.status));
        status.preload_progress = Some(mirror.progress);
        assert_eq!(plan(&Observed { status: Some(&status), ..base }), Plan::default());
    }
}

#[test]
fn what_was_erased_comes_back_later_and_without_an_event() {
    let status = filled(None);
    let base = observed(Schema::Patched, Some(child(Phase::Loaded)));
    let mirror = Mirror { status: MirroredStatus::Loaded, progress: String::new() };
    let written = Written { mirror: mirror.clone(), at: base.now, erased: 3 };
    let at = |seconds: i64| {
        let now = base.now + std::time::Duration::from_secs(seconds.unsigned_abs());
        plan(&Observed { status: Some(&status), written: Some(&written), now, ..base.clone() })
    };
    assert_eq!(
        at(7),
        Plan { again_at: Some(base.now + std::time::Duration::from_secs(8)), ..Plan::default() }
    );
    assert_eq!(at(8), Plan { mirror: Some(mirror), ..Plan::default() });
}

#[test]
fn what_fluid_may_erase_is_recorded_where_no_preload_has_it() {
    let enabled = PreloadWish { enabled: true, path: "/data".into() };
    let disabled = PreloadWish { enabled: false, path: "/data".into() };
    let record = |schema, spec, recorded| {
        plan(&Observed { spec, recorded, ..observed(schema, None) })
            .annotations
            .map(|annotations| annotations.spec)
    };
    assert_eq!(record(Schema::Patched, Some(&enabled), None), None, "the Preload has it");
    assert_eq!(record(Schema::Patched, Some(&disabled), None), Some(Some(disabled.clone())));
    assert_eq!(record(Schema::Patched, Some(&disabled), Some(disabled.clone())), None);
    assert_eq!(record(Schema::Patched, Some(&enabled), Some(disabled.clone())), Some(Some(enabled.clone())));
    assert_eq!(record(Schema::Standalone, Some(&disabled), None), None);
    // It is not lost when Fluid brings its own CRD back.
    let stock = plan(&Observed { recorded: Some(disabled.clone()), ..observed(Schema::Stock, None) });
    let wanted = Annotations { status: Some(MirroredStatus::NotStarted), spec: Some(disabled) };
    assert_eq!(stock.annotations, Some(wanted));
}

#[test]
fn a_leftover_annotation_goes_when_the_status_has_a_field() {
    let status = filled(Some(MirroredStatus::Loaded));
    let base = observed(Schema::Patched, Some(child(Phase::Loaded)));
    let left = plan(&Observed { annotated: Some("NotStarted"), status: Some(&status), ..base });
    assert_eq!(left, Plan { annotations: Some(Annotations::default()), ..Plan::default() });
}

#[test]
fn without_the_label_nothing_begins_but_what_runs_is_told_of() {
    let outside = |child| Observed { opted_in: false, ..observed(Schema::Standalone, child) };
    assert_eq!(plan(&outside(None)), Plan::default());
    let told = plan(&outside(Some(child(Phase::Loaded))));
    assert_eq!((told.step, told.mirror.unwrap().status), (Step::Keep, MirroredStatus::Loaded));
    let other = Child { spec: PreloadSpec { replicas: 7, ..load() }, ..child(Phase::Loaded) };
    assert_eq!(plan(&outside(Some(other))).step, Step::Keep);
}
