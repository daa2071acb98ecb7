//! Table tests of single steps, and random courses that hold the invariants at every step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    api::{RuntimeRef, condition},
    preload::{
        gates::Gate,
        load::{Answer, Load, State},
    },
};

const UID: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";

/// A Preload in a small world that a test changes.
#[derive(Clone, Debug)]
struct World {
    spec: PreloadSpec,
    status: PreloadStatus,
    generation: i64,
    deleted: Option<Timestamp>,
    finalizer: bool,
    cluster: Cluster,
    seen: BTreeMap<String, Seen>,
    now: Timestamp,
}

impl World {
    /// Nothing is ready yet.
    fn new() -> Self {
        let spec = PreloadSpec {
            runtime_ref: RuntimeRef { kind: Default::default(), name: "hbase".into(), workers: None },
            path: "/data".into(),
            replicas: 1,
            engine: Engine::Auto,
            timeout: None,
            reverify_interval: None,
            max_bytes_per_second: None,
        };
        Self {
            spec,
            status: PreloadStatus::default(),
            generation: 1,
            deleted: None,
            finalizer: true,
            cluster: Cluster::missing("PodMissing", "there is no pod"),
            seen: BTreeMap::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    /// Every gate is open, and the sidecar answers that it knows no load.
    fn ready() -> Self {
        let mut world = Self::new();
        world.pod("pod-1");
        world.cluster.master = Gate::Open(());
        world.cluster.workers = Gate::Open(2);
        world.answers(Answer::NotFound);
        world
    }

    /// A load was started and is `state`.
    fn running(state: State) -> Self {
        let mut world = Self::ready();
        world.settle();
        world.answers(load(state));
        world.settle();
        world
    }

    fn pod(&mut self, uid: &str) {
        self.cluster.pod_uid = Some(uid.into());
        self.cluster.sidecar = Gate::Open(Endpoint {
            pod: "hbase-master-0".into(),
            pod_uid: uid.into(),
            ip: "10.0.0.1".into(),
            port: 29700,
            identity: crate::credentials::Identity::new("ns", "hbase-master"),
            injected_by: None,
        });
    }

    fn id(&self) -> String {
        let run = self.status.run.max(1);
        load_id(UID, &self.spec, run)
    }

    fn answers(&mut self, answer: Answer) {
        self.seen.insert(self.id(), Seen { contact: Contact::Answering, answer });
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            subject: Subject {
                namespace: "ns",
                name: "hbase",
                uid: UID,
                generation: self.generation,
                deleted: self.deleted,
                finalizer: self.finalizer,
                spec: &self.spec,
                status: &self.status,
            },
            cluster: &self.cluster,
            seen: &self.seen,
            now: self.now,
            deletion_patience: Duration::from_secs(60),
        })
    }

    /// Carries a plan out, as the API server would show it then.
    fn apply(&mut self, plan: &Plan) {
        match plan.finalizer {
            Finalizer::Keep => {}
            Finalizer::Add => self.finalizer = true,
            Finalizer::Remove => self.finalizer = false,
        }
        if let Some(status) = &plan.status {
            // Through JSON, since that is what comes back.
            self.status = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
        }
    }

    /// Plans and applies until nothing is left to write; gives the last plan.
    fn settle(&mut self) -> Plan {
        for _ in 0..6 {
            let plan = self.plan();
            if plan.status.is_none() && plan.finalizer == Finalizer::Keep {
                return plan;
            }
            self.apply(&plan);
        }
        panic!("no end: {:?}", self.plan());
    }

    fn condition(&self, type_: &str) -> (&str, &str) {
        let found = self.status.conditions.iter().find(|c| c.type_ == type_);
        found.map_or(("", ""), |c| (c.status.as_str(), c.reason.as_str()))
    }
}

fn load(state: State) -> Answer {
    Answer::Load(Box::new(Load {
        state,
        reason: String::new(),
        message: String::new(),
        engine: None,
        start_time: None,
        end_time: state.is_over().then(|| Timestamp::from_second(1_800_000_000).unwrap()),
        progress: None,
        failures: None,
    }))
}

fn failed(reason: &str) -> Answer {
    let Answer::Load(mut load) = load(State::Failed) else { unreachable!() };
    load.reason = reason.into();
    Answer::Load(load)
}

fn intents(plan: &Plan) -> Vec<&'static str> {
    let name = |order: &Order| match order.intent {
        Intent::Look => "look",
        Intent::Start(_) => "start",
        Intent::Cancel => "cancel",
    };
    plan.orders.iter().map(name).collect()
}

#[test]
fn the_finalizer_comes_before_anything_else() {
    let world = World { finalizer: false, ..World::ready() };
    assert_eq!(world.plan(), Plan { finalizer: Finalizer::Add, ..Plan::default() });
}

#[test]
fn run_id_and_pod_are_written_before_the_load_is_started() {
    let mut world = World::ready();
    let first = world.plan();
    assert_eq!(intents(&first), ["look"]);
    world.apply(&first);
    assert_eq!((world.status.run, world.status.load_id.clone()), (1, Some(world.id())));
    assert_eq!(world.status.submission.as_ref().unwrap().pod_uid, "pod-1");
    let second = world.plan();
    assert_eq!((second.status.is_none(), intents(&second)), (true, vec!["start"]));
    let Intent::Start(wish) = &second.orders[0].intent else { panic!() };
    assert_eq!((wish.min_workers, wish.replicas, wish.path.as_str()), (2, 1, "/data"));
}

#[test]
fn each_shut_gate_keeps_the_load_from_starting_and_says_why() {
    type Shut = fn(&mut World);
    let gates: [(Shut, &str); 4] = [
        (|w| w.cluster.master = Gate::shut("PodNotReady", "shut"), condition::MASTER_READY),
        (|w| w.cluster.workers = Gate::shut("PartialReady", "shut"), condition::WORKERS_READY),
        (|w| w.cluster.sidecar = Gate::shut("PodNotRunning", "shut"), condition::SIDECAR_REACHABLE),
        (
            |w| {
                let contact = Contact::Failing { reason: "Unreachable", message: "shut".into() };
                w.seen.insert(w.id(), Seen { contact, answer: Answer::None });
            },
            condition::SIDECAR_REACHABLE,
        ),
    ];
    for (shut, type_) in gates {
        let mut world = World::ready();
        shut(&mut world);
        let plan = world.settle();
        assert!(!intents(&plan).contains(&"start"), "{type_}");
        assert_eq!(world.status.submission, None);
        assert_eq!(world.condition(type_).0, "False");
        assert_eq!((world.status.phase, world.status.message.as_deref()), (Phase::Pending, Some("shut")));
    }
}

#[test]
fn a_gate_that_shuts_between_the_write_and_the_start_stops_it() {
    let mut world = World::ready();
    let plan = world.plan();
    world.apply(&plan);
    world.cluster.workers = Gate::shut("WorkersNotReady", "1 of 2");
    assert_eq!(intents(&world.settle()), ["look"]);
    world.cluster.workers = Gate::Open(2);
    assert_eq!(intents(&world.settle()), ["start"], "it opens again");
}

#[test]
fn states_of_the_sidecar_become_phases() {
    for (state, phase) in [
        (State::Queued, Phase::Pending),
        (State::Waiting, Phase::Pending),
        (State::Listing, Phase::Pending),
        (State::Loading, Phase::Loading),
        (State::Verifying, Phase::Loading),
        (State::Loaded, Phase::Loaded),
        (State::Failed, Phase::Failed),
        (State::Cancelled, Phase::Cancelled),
    ] {
        let world = World::running(state);
        assert_eq!((world.status.phase, world.status.run), (phase, 1), "{state:?}");
        assert!(world.status.submission.as_ref().unwrap().accepted);
    }
}

#[test]
fn a_changed_path_cancels_the_old_load_and_starts_the_new() {
    let mut world = World::running(State::Loading);
    let old = world.id();
    world.spec.path = "/other".into();
    world.generation = 2;
    let plan = world.settle();
    assert_eq!((world.status.run, world.status.phase), (2, Phase::Pending));
    assert_eq!(world.status.cancelling, std::slice::from_ref(&old));
    assert_eq!(intents(&plan), ["cancel", "look"]);
    world.seen.insert(old.clone(), Seen { contact: Contact::Answering, answer: load(State::Cancelled) });
    world.answers(Answer::NotFound);
    assert_eq!(intents(&world.settle()), ["start"]);
    assert!(world.status.cancelling.is_empty());
}

#[test]
fn a_finished_load_is_not_cancelled_when_the_path_changes() {
    let mut world = World::running(State::Loaded);
    world.spec.path = "/other".into();
    world.generation = 2;
    world.settle();
    assert!(world.status.cancelling.is_empty());
}

#[test]
fn a_new_time_limit_alone_starts_nothing() {
    let mut world = World::running(State::Loaded);
    world.spec.timeout = Some("2h".into());
    world.generation = 2;
    world.settle();
    assert_eq!(
        (world.status.run, world.status.phase, world.status.observed_generation),
        (1, Phase::Loaded, Some(2))
    );
}

#[test]
fn what_failed_for_good_waits_for_a_change_of_the_spec() {
    let mut world = World::running(State::Loading);
    world.answers(failed("PathNotFound"));
    assert_eq!(world.settle().again_at, None);
    world.now += Duration::from_secs(1_000_000);
    world.settle();
    assert_eq!((world.status.run, world.status.phase), (1, Phase::Failed));
    world.spec.timeout = Some("2h".into());
    world.generation = 2;
    world.settle();
    assert_eq!((world.status.run, world.status.phase), (2, Phase::Pending));
}

#[test]
fn what_may_pass_is_tried_again_after_a_growing_pause() {
    let mut world = World::running(State::Loading);
    let mut pauses = Vec::new();
    for retry in 1..4 {
        let Answer::Load(mut load) = failed("GateTimedOut") else { unreachable!() };
        load.end_time = Some(world.now);
        world.answers(Answer::Load(load));
        let plan = world.settle();
        assert_eq!((world.status.phase, world.status.retries), (Phase::Failed, retry - 1));
        let again = plan.again_at.unwrap();
        pauses.push(again.duration_since(world.now));
        world.now = again;
        world.settle();
        assert_eq!(
            (world.status.run, world.status.retries, world.status.phase),
            (i64::from(retry) + 1, retry, Phase::Pending)
        );
        world.answers(Answer::NotFound);
        assert_eq!(intents(&world.settle()), ["start"]);
    }
    assert!(pauses[2] > pauses[0], "{pauses:?}");
    world.answers(load(State::Loaded));
    world.settle();
    assert_eq!(world.status.retries, 0);
}

fn evicted(ended: Timestamp) -> Answer {
    let Answer::Load(mut stale) = load(State::Stale) else { unreachable!() };
    stale.reason = "Evicted".into();
    stale.message = "12 of 1000 files (190.0 kB) have left the cache".into();
    stale.end_time = Some(ended);
    Answer::Load(stale)
}

#[test]
fn what_was_evicted_is_loaded_again_at_once_and_then_less_and_less_often() {
    let mut world = World::running(State::Loaded);
    let mut pauses = Vec::new();
    for evictions in 1..5 {
        world.now += Duration::from_secs(60);
        world.answers(evicted(world.now));
        let plan = world.plan();
        let notice = &plan.notices[0];
        assert!(
            notice.warning && notice.reason == "Evicted" && notice.note.contains("12 of 1000"),
            "{notice:?}"
        );
        world.apply(&plan);
        assert_eq!((world.status.phase, world.status.evictions), (Phase::Pending, evictions));
        assert_eq!(world.condition(condition::LOADED), ("False", "Evicted"));
        let why = world.status.conditions.iter().find(|c| c.type_ == condition::LOADED).unwrap();
        assert!(why.message.contains("12 of 1000"), "{why:?}");
        world.answers(Answer::NotFound);
        let plan = world.settle();
        if let Some(again) = plan.again_at {
            assert!(
                intents(&plan) == ["look"] && world.status.message.as_ref().unwrap().contains("again in")
            );
            pauses.push(Duration::try_from(again.duration_since(world.now)).unwrap().as_secs());
            world.now = again;
        }
        assert_eq!(intents(&world.settle()), ["start"]);
        world.answers(load(State::Loaded));
        world.settle();
        assert_eq!((world.status.phase, world.status.evictions), (Phase::Loaded, evictions), "not forgotten");
    }
    assert!(pauses.len() == 3 && pauses.is_sorted() && pauses[0] >= 15 && pauses[2] <= 121, "{pauses:?}");

    // Data that stayed for hours were not loaded in vain.
    let ended = world.now;
    world.now += Duration::from_secs(2 * 3600);
    world.answers(evicted(ended));
    world.apply(&world.plan());
    assert_eq!((world.status.evictions, world.status.not_before.as_ref()), (1, None));
}

#[test]
fn the_interval_of_checks_reaches_the_sidecar() {
    let mut world = World::ready();
    world.spec.reverify_interval = Some("10m".into());
    let plan = world.settle();
    let Some(Order { intent: Intent::Start(wish), .. }) = plan.orders.first() else { panic!("{plan:?}") };
    assert_eq!(wish.reverify_interval, Some(Duration::from_secs(600)));
    let mut world = World::ready();
    world.spec.reverify_interval = Some("often".into());
    world.settle();
    assert_eq!(world.status.phase, Phase::Failed);
    assert!(world.status.message.as_ref().unwrap().contains("reverifyInterval"), "{:?}", world.status);
}

#[test]
fn loaded_is_withdrawn_when_it_is_no_longer_true() {
    type Change = fn(&mut World);
    let changes: [(Change, &str); 6] = [
        (|w| w.pod("pod-2"), "MasterReplaced"),
        (|w| w.cluster = Cluster::missing("PodMissing", "gone"), "MasterReplaced"),
        (|w| w.answers(load(State::Stale)), "CacheLost"),
        (|w| w.answers(evicted(w.now)), "Evicted"),
        (|w| w.answers(Answer::NotFound), "LoadForgotten"),
        (|w| w.cluster.mount_time = Some("2026-01-01T00:00:00Z".into()), "MountsChanged"),
    ];
    for (change, reason) in changes {
        let mut world = World::running(State::Loaded);
        assert_eq!(world.condition(condition::LOADED), ("True", "Verified"));
        change(&mut world);
        let plan = world.plan();
        assert_eq!(plan.notices.first().map(|notice| notice.reason.as_str()), Some(reason));
        world.apply(&plan);
        assert_eq!((world.status.run, world.status.phase), (2, Phase::Pending), "{reason}");
        assert_eq!(world.condition(condition::LOADED), ("False", reason));
        assert_eq!((world.status.progress, world.status.completion_time), (None, None));
    }
}

#[test]
fn a_sidecar_that_does_not_answer_takes_nothing_back() {
    for state in [State::Loading, State::Loaded] {
        let mut world = World::running(state);
        let phase = world.status.phase;
        let seen = world.seen.get_mut(&load_id(UID, &world.spec, 1)).unwrap();
        seen.contact = Contact::Failing { reason: "Unreachable", message: "no answer".into() };
        let plan = world.plan();
        assert_eq!(plan.notices[0].reason, "SidecarUnreachable");
        world.settle();
        assert_eq!((world.status.phase, world.status.run), (phase, 1));
        assert_eq!(world.condition(condition::SIDECAR_REACHABLE), ("False", "Unreachable"));
    }
}

/// After a start of the controller nothing is known of any sidecar.
#[test]
fn a_cold_start_writes_nothing() {
    for state in
        [State::Queued, State::Listing, State::Loading, State::Loaded, State::Failed, State::Cancelled]
    {
        let mut world = World::running(state);
        let answered = std::mem::take(&mut world.seen);
        let plan = world.plan();
        assert_eq!(plan.status, None, "{state:?}");
        assert!(!intents(&plan).contains(&"start"), "{state:?}");
        world.seen = answered;
        world.now += Duration::from_secs(3600);
        assert_eq!(world.plan().status, None, "{state:?}");
    }
}

#[test]
fn what_the_sidecar_refuses_is_failed_until_the_spec_changes() {
    let mut world = World::ready();
    world.settle();
    world.answers(Answer::Refused { message: "spec.path is too long".into() });
    world.settle();
    assert_eq!(
        (world.status.phase, world.status.message.as_deref()),
        (Phase::Failed, Some("spec.path is too long"))
    );
    world.spec.path = "/short".into();
    world.generation = 2;
    world.settle();
    assert_eq!((world.status.run, world.status.phase), (2, Phase::Pending));
    assert!(world.status.cancelling.is_empty(), "there is nothing to cancel");
}

#[test]
fn deletion_cancels_and_then_lets_go() {
    let mut world = World::running(State::Loading);
    world.deleted = Some(world.now);
    let plan = world.plan();
    assert_eq!((intents(&plan), plan.finalizer), (vec!["cancel"], Finalizer::Keep));
    world.answers(load(State::Cancelled));
    assert_eq!(world.plan().finalizer, Finalizer::Remove);
}

#[test]
fn a_lost_sidecar_does_not_hold_up_a_deletion_for_ever() {
    let mut world = World::running(State::Loading);
    world.deleted = Some(world.now);
    world.seen.clear();
    assert_eq!(world.plan().again_at, Some(world.now + Duration::from_secs(60)));
    world.now += Duration::from_secs(60);
    let plan = world.plan();
    assert_eq!((plan.finalizer, plan.notices[0].reason.as_str()), (Finalizer::Remove, "CancelAbandoned"));
}

#[test]
fn a_deletion_with_nothing_to_cancel_is_done_at_once() {
    for mut world in [World::new(), World::running(State::Loaded), World::running(State::Failed)] {
        world.deleted = Some(world.now);
        assert_eq!(world.plan().finalizer, Finalizer::Remove, "{:?}", world.status.phase);
    }
    let mut world = World::running(State::Loading);
    world.deleted = Some(world.now);
    world.cluster = Cluster::missing("RuntimeMissing", "gone");
    assert_eq!(world.plan().finalizer, Finalizer::Remove, "no pod, no load");
}

/// What may happen in the world between two looks.
#[derive(Clone, Debug)]
enum Happening {
    Master(bool),
    Workers(Option<u32>),
    /// A new pod, whose sidecar finds the store of the one before, or not.
    NewPod {
        store_survives: bool,
    },
    NoPod,
    Reach(u8),
    Advance(u8),
    Path(u8),
    Timeout(bool),
    Mount(u8),
    Wait(u32),
    Restart,
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => any::<bool>().prop_map(Happening::Master),
        2 => proptest::option::of(1u32..4).prop_map(Happening::Workers),
        2 => any::<bool>().prop_map(|store_survives| Happening::NewPod { store_survives }),
        1 => Just(Happening::NoPod),
        3 => (0u8..4).prop_map(Happening::Reach),
        6 => (0u8..9).prop_map(Happening::Advance),
        1 => (0u8..3).prop_map(Happening::Path),
        1 => any::<bool>().prop_map(Happening::Timeout),
        1 => (0u8..3).prop_map(Happening::Mount),
        1 => (1u32..2000).prop_map(Happening::Wait),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Delete),
    ]
}

/// The sidecar of the present pod, as it would behave.
#[derive(Default)]
struct Sidecars {
    pods: u32,
    loads: BTreeMap<String, State>,
}

const STATES: [State; 9] = [
    State::Queued,
    State::Waiting,
    State::Listing,
    State::Loading,
    State::Verifying,
    State::Loaded,
    State::Failed,
    State::Cancelled,
    State::Stale,
];

fn happen(world: &mut World, sidecars: &mut Sidecars, happening: Happening) {
    match happening {
        Happening::Master(true) => world.cluster.master = Gate::Open(()),
        Happening::Master(false) => world.cluster.master = Gate::shut("PodNotReady", "m"),
        Happening::Workers(Some(workers)) => world.cluster.workers = Gate::Open(workers),
        Happening::Workers(None) => world.cluster.workers = Gate::shut("PartialReady", "w"),
        Happening::NewPod { store_survives } => {
            sidecars.pods += 1;
            let before = std::mem::take(&mut sidecars.loads);
            sidecars.loads = if store_survives { before } else { BTreeMap::new() };
            world.pod(&format!("pod-{}", sidecars.pods));
            world.seen.clear();
        }
        Happening::NoPod => {
            world.cluster.pod_uid = None;
            world.cluster.sidecar = Gate::shut("PodMissing", "p");
            world.seen.clear();
        }
        Happening::Reach(how) => {
            let contact = match how {
                0 => Contact::Failing { reason: "Unreachable", message: "r".into() },
                1 => Contact::Connecting,
                _ => Contact::Answering,
            };
            world.seen.values_mut().for_each(|seen| seen.contact = contact.clone());
        }
        Happening::Advance(to) => {
            for state in
                sidecars.loads.values_mut().filter(|state| !state.is_over() || **state == State::Loaded)
            {
                let to = STATES[usize::from(to)];
                if *state != State::Loaded || to == State::Stale {
                    *state = to;
                }
            }
        }
        Happening::Path(number) => {
            world.spec.path = format!("/path-{number}");
            world.generation += 1;
        }
        Happening::Timeout(some) => {
            world.spec.timeout = some.then(|| "2h".to_owned());
            world.generation += 1;
        }
        Happening::Mount(number) => {
            world.cluster.mount_time = Some(number.to_string()).filter(|_| number > 0)
        }
        Happening::Wait(seconds) => world.now += Duration::from_secs(seconds.into()),
        Happening::Restart => world.seen.clear(),
        Happening::Delete => world.deleted = world.deleted.or(Some(world.now)),
    }
}

/// What sessions would do with these orders.
fn obey(world: &mut World, sidecars: &mut Sidecars, plan: &Plan) {
    world.seen.retain(|id, _| plan.orders.iter().any(|order| order.load_id == *id));
    for order in &plan.orders {
        let contact = world.seen.get(&order.load_id).map_or(Contact::Answering, |seen| seen.contact.clone());
        if contact != Contact::Answering {
            continue;
        }
        let loads = &mut sidecars.loads;
        match order.intent {
            Intent::Look => {}
            Intent::Start(_) => {
                loads.entry(order.load_id.clone()).or_insert(State::Queued);
            }
            Intent::Cancel => {
                if let Some(state) = loads.get_mut(&order.load_id).filter(|state| !state.is_over()) {
                    *state = State::Cancelled;
                }
            }
        }
        let answer = loads.get(&order.load_id).map_or(Answer::NotFound, |state| load(*state));
        world.seen.insert(order.load_id.clone(), Seen { contact, answer });
    }
}

/// What every order to start must be true to, also while something is still to be written.
fn hold_orders(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    for order in plan.orders.iter().filter(|order| matches!(order.intent, Intent::Start(_))) {
        let cluster = &world.cluster;
        let gates = (cluster.master.open(), cluster.workers.open(), cluster.sidecar.open());
        prop_assert!(matches!(gates, (Some(()), Some(_), Some(_))), "started with a shut gate");
        prop_assert_eq!(world.status.load_id.as_ref(), Some(&order.load_id), "its id is not written");
        let submission = world.status.submission.as_ref().unwrap();
        prop_assert_eq!(&submission.pod_uid, &order.endpoint.pod_uid);
        prop_assert!(world.deleted.is_none(), "started while being deleted");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn whatever_happens_the_invariants_hold(course in proptest::collection::vec(happening(), 1..60)) {
        let mut world = World::new();
        let mut sidecars = Sidecars::default();
        for happening in course {
            happen(&mut world, &mut sidecars, happening);
            let before = world.status.clone();
            let mut writes = 0;
            let plan = loop {
                let plan = world.plan();
                if plan.status.is_none() && plan.finalizer == Finalizer::Keep {
                    break plan;
                }
                writes += 1;
                prop_assert!(writes <= 4, "planning does not end: {plan:?}");
                hold_orders(&world, &plan)?;
                world.apply(&plan);
                if plan.finalizer == Finalizer::Remove {
                    break Plan::default();
                }
            };
            prop_assert!(world.status.run >= before.run, "the run went back");
            hold_orders(&world, &plan)?;
            obey(&mut world, &mut sidecars, &plan);
            if !world.finalizer {
                break;
            }
            // Every load that runs is the present one, or on its way out.
            for (id, state) in sidecars.loads.iter().filter(|(_, state)| !state.is_over()) {
                let current = world.status.load_id.as_ref() == Some(id);
                let known = current || world.status.cancelling.contains(id);
                prop_assert!(known, "load {id} is {state:?} and forgotten: {:?}", world.status);
            }
        }
    }
}
