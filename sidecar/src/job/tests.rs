//! The full table of (state, event), and the rules that hold over any history.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn events() -> Vec<Event> {
    let message = String::new;
    vec![
        Event::Admitted,
        Event::GateShut { reason: Reason::WorkersMissing, message: message() },
        opened(),
        Event::LoadingSkipped,
        Event::LoadingStarted {
            engine: EngineKind::DistributedLoad,
            why: message(),
            message: message(),
            top_up: false,
            resumed: false,
            remnant: Some(REMNANT),
        },
        Event::LoadingEnded { message: message() },
        Event::Verified { empty: false },
        Event::Failed { reason: Reason::Incomplete, message: message() },
        Event::CancelRequested,
        Event::Cancelled,
        Event::Withdrawn { reason: Reason::ClusterChanged, message: message() },
        Event::Interrupted,
        Event::Submitted { job_control_id: 7 },
        Event::RemnantCleared,
        Event::FoundMissing { failures: FailureList { generation: 1, count: 1 }, message: message() },
        Event::SeenAgain { count: Count::default() },
        Event::FoundGone {
            count: Count::default(),
            failures: FailureList { generation: 1, count: 1 },
            message: message(),
        },
        Event::LengthsProven,
        Event::LengthsDoubted,
    ]
}

fn opened() -> Event {
    Event::GatesOpened { cluster: "c".to_owned() }
}

const REMNANT: Remnant = Remnant { job_floor: 0, job_control_id: None };

fn job() -> Job {
    let path = AlluxioPath::try_from("/a".to_owned()).unwrap();
    let id = LoadId::try_from("a".to_owned()).unwrap();
    Job::new(id, Uuid::nil(), Spec::new(path), Timestamp::UNIX_EPOCH)
}

/// Rows: states. Columns: events in the order of [`events`], `Cancelled` with a wish to cancel
/// recorded and all others without. `.`: illegal;
/// else the first two letters of the state that follows.
const TABLE: &str = "
    Queued    Wa . . . . . . Fa Qu Ca . Qu . Qu . . . Qu Qu
    Waiting   . Wa Li . . . . Fa Wa Ca . Wa . Wa . . . Wa Wa
    Listing   . Wa . Ve Lo . . Fa Li Ca . Wa . Li . . . Li Li
    Loading   . . . . . Ve . Fa Lo Ca . Wa Lo Lo . . . Lo Lo
    Verifying . Wa . . Lo . LOADED Fa Ve Ca . Wa . Ve Ve . . Ve Ve
    Loaded    . . . . . . . . . . St . . . . LOADED St . .
    Failed    . . . . . . . . . . . . . . . . . . .
    Cancelled . . . . . . . . . . . . . . . . . . .
    Stale     . . . . . . . . . . . . . . . . . . .
";

#[test]
fn every_pair_of_state_and_event() {
    let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), State::ALL.len());
    for (state, row) in State::ALL.into_iter().zip(rows) {
        assert_eq!(row[0], format!("{state:?}"));
        assert_eq!(row.len() - 1, events().len());
        for (event, wanted) in events().iter().zip(&row[1..]) {
            let got = match state.next(event, *event == Event::Cancelled) {
                Err(_) => ".".to_owned(),
                Ok(State::Loaded) => "LOADED".to_owned(),
                Ok(next) => format!("{next:?}")[..2].to_owned(),
            };
            assert_eq!(got, *wanted, "{state:?} on {event:?}");
        }
    }
}

#[test]
fn a_load_with_a_wish_to_cancel_ends_cancelled() {
    let failed = Event::Failed { reason: Reason::Incomplete, message: String::new() };
    for state in State::ALL.into_iter().filter(|state| state.is_live()) {
        assert!(state.next(&failed, true).is_err(), "{state:?}");
        assert_eq!(state.next(&Event::Cancelled, true), Ok(State::Cancelled));
    }
    assert!(State::Verifying.next(&Event::Verified { empty: false }, true).is_err());
}

#[test]
fn a_load_says_that_it_is_being_cancelled() {
    let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
    let mut job = job();
    job.apply(Event::CancelRequested, at(10)).unwrap();
    assert!(job.message.starts_with("cancelling"), "{}", job.message);
    job.apply(Event::CancelRequested, at(20)).unwrap();
    assert_eq!(job.cancel_requested, Some(at(10)), "the first wish counts");
    job.apply(Event::Interrupted, at(30)).unwrap();
    assert!(job.message.contains("restarted; cancelling"), "{}", job.message);
    job.apply(Event::Cancelled, at(40)).unwrap();
    assert_eq!((job.state, job.message.as_str()), (State::Cancelled, "cancelled by CancelLoad"));
}

#[test]
fn a_check_moves_the_time_of_the_verification_or_withdraws_with_figures() {
    let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
    let mut job = job();
    job.spec.reverify_interval = Some(Duration::from_secs(60));
    assert_eq!(job.check_due(), None, "only LOADED is checked");
    for event in [Event::Admitted, opened(), Event::LoadingSkipped, Event::Verified { empty: false }] {
        job.apply(event, at(10)).unwrap();
    }
    assert_eq!((job.verified, job.check_due()), (Some(at(10)), Some(at(70))));

    let count = Count { files_total: 3, files_cached: 3, ..Count::default() };
    job.apply(Event::SeenAgain { count }, at(75)).unwrap();
    assert_eq!((job.verified, job.check_due(), job.ended), (Some(at(75)), Some(at(135)), Some(at(10))));
    assert_eq!((job.progress.count(), job.transitions.len()), (&count, 4));
    job.apply(Event::SeenAgain { count: Count::default() }, at(76)).unwrap();
    assert_eq!(job.reason, Some(Reason::Empty), "its files were deleted");

    let (gone, failures) = (Count { files_failed: 1, ..count }, FailureList { generation: 7, count: 1 });
    job.apply(Event::FoundGone { count: gone, failures, message: "gone".into() }, at(80)).unwrap();
    assert_eq!((job.state, job.reason, job.failures), (State::Stale, Some(Reason::Evicted), failures));
    assert_eq!((job.verified, job.check_due()), (Some(at(76)), None));
    assert_eq!(job.progress.count(), &gone);
}

#[test]
fn a_job_that_was_stored_without_the_fields_of_checks_is_read() {
    let mut stored = serde_json::to_value(job()).unwrap();
    let object = stored.as_object_mut().unwrap();
    object.remove("verified").unwrap();
    object["spec"].as_object_mut().unwrap().remove("reverify_interval").unwrap();
    assert_eq!(serde_json::from_value::<Job>(stored).unwrap(), job());
}

#[test]
fn a_restart_takes_no_time_away() {
    let mut job = job();
    job.spec.timeout = Some(Duration::from_secs(100));
    let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
    job.apply(Event::Admitted, at(0)).unwrap();
    job.apply(opened(), at(0)).unwrap();
    job.advance(Count::default(), at(30));
    let mut job = job.recovered(at(4000));
    job.apply(opened(), at(4000)).unwrap();
    assert_eq!(job.time_left(at(4000)), Some(Duration::from_secs(70)));
}

#[test]
fn figures_that_were_reckoned_too_high_are_not_called_counted() {
    let mut progress = Progress::new(1);
    let count = |bytes_cached, cached_exact| Count {
        bytes_total: 100,
        bytes_cached,
        cached_exact,
        totals_exact: true,
        ..Count::default()
    };
    let shown = |progress: &Progress| (progress.count().bytes_cached, progress.count().cached_exact);
    progress.advance(count(10, true));
    progress.advance(count(80, false));
    progress.advance(count(20, true));
    assert_eq!(shown(&progress), (80, false));
    progress.advance(count(80, true));
    assert_eq!(shown(&progress), (80, true));
    progress.reset(count(20, true));
    assert_eq!(shown(&progress), (20, true));
}

#[test]
fn a_listing_is_no_waiting_unless_it_failed() {
    let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
    let shut = || Event::GateShut { reason: Reason::NotEnoughRoom, message: String::new() };
    for (totals_exact, left) in [(true, 500), (false, 200)] {
        let mut job = job();
        job.apply(Event::Admitted, at(0)).unwrap();
        job.apply(shut(), at(0)).unwrap();
        job.apply(opened(), at(90)).unwrap();
        job.advance(Count { totals_exact, ..Count::default() }, at(390));
        job.apply(shut(), at(390)).unwrap();
        assert_eq!(job.wait_left(at(400)), Duration::from_secs(left));
        // What goes wrong before the next listing has come to its end is waiting.
        job.apply(opened(), at(400)).unwrap();
        job.apply(shut(), at(490)).unwrap();
        assert_eq!(job.wait_left(at(500)), Duration::from_secs(left - 100));
    }
}

#[test]
fn nothing_is_cancelled_without_a_wish() {
    for state in State::ALL {
        assert!(state.next(&Event::Cancelled, false).is_err());
    }
}

#[test]
fn attempts_count_loading_but_not_restarts_and_top_ups() {
    let mut job = job();
    let start = |top_up, resumed| Event::LoadingStarted {
        engine: EngineKind::DistributedLoad,
        why: String::new(),
        message: String::new(),
        top_up,
        resumed,
        remnant: Some(REMNANT),
    };
    let ended = || Event::LoadingEnded { message: String::new() };
    for event in [Event::Admitted, opened(), start(false, false)] {
        job.apply(event, Timestamp::UNIX_EPOCH).unwrap();
    }
    assert_eq!((job.attempt, job.top_ups), (1, 0));
    job = job.recovered(Timestamp::UNIX_EPOCH);
    for event in [opened(), start(false, true), ended(), start(true, false), ended()] {
        job.apply(event, Timestamp::UNIX_EPOCH).unwrap();
    }
    assert_eq!((job.attempt, job.top_ups), (1, 1));
    job.apply(start(false, false), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((job.attempt, job.top_ups), (2, 1));
}

#[test]
fn the_timeout_counts_active_states_only() {
    let mut job = job();
    job.spec.timeout = Some(Duration::from_secs(100));
    let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
    job.apply(Event::Admitted, at(0)).unwrap();
    job.apply(opened(), at(1000)).unwrap();
    assert_eq!(job.time_left(at(1030)), Some(Duration::from_secs(70)));
    let shut = Event::GateShut { reason: Reason::NotEnoughRoom, message: String::new() };
    job.apply(shut, at(1040)).unwrap();
    assert_eq!(job.time_left(at(2000)), Some(Duration::from_secs(60)));
    assert_eq!(job.wait_left(at(1100)), WAIT_TIMEOUT_LESS_60);
}

const WAIT_TIMEOUT_LESS_60: Duration = Duration::from_secs(540);

#[test]
fn a_clock_that_goes_back_takes_no_time_away() {
    let mut job = job();
    job.spec.timeout = Some(Duration::from_secs(100));
    let late = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    job.apply(Event::Admitted, late).unwrap();
    job.apply(opened(), late).unwrap();
    assert_eq!(job.time_left(Timestamp::UNIX_EPOCH), Some(Duration::from_secs(100)));
}

#[test]
fn paths_are_normalised_or_refused_with_the_accepted_form() {
    let accept = |text: &str| AlluxioPath::try_from(text.to_owned()).unwrap().to_string();
    assert_eq!(accept("/"), "/");
    assert_eq!(accept("//a///b/"), "/a/b");
    assert_eq!(accept("/-x/a b,'\"ü"), "/-x/a b,'\"ü");
    for bad in ["", "a", "-x", "./a", "/a/../b", "/a/.", "/a\nb", "/a\0b", &"/a".repeat(2049)] {
        let error = AlluxioPath::try_from(bad.to_owned()).unwrap_err();
        assert!(error.contains("absolute") || error.contains("at most"), "{bad:?}: {error}");
    }
}

#[test]
fn overlap_is_by_component() {
    let path = |text: &str| AlluxioPath::try_from(text.to_owned()).unwrap();
    assert!(path("/a").overlaps(&path("/a/b")) && path("/a/b").overlaps(&path("/a")));
    assert!(path("/").overlaps(&path("/a")) && path("/a").overlaps(&path("/a")));
    assert!(!path("/a").overlaps(&path("/ab")));
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules(picks in prop::collection::vec((0usize..17, any::<bool>()), 0..200)) {
        let mut job = job();
        for (pick, crash) in picks {
            let before = job.clone();
            let result = job.apply(events().swap_remove(pick), Timestamp::UNIX_EPOCH);
            match result {
                Err(_) => prop_assert_eq!(&job, &before),
                Ok(()) => prop_assert!(job.sequence > before.sequence),
            }
            if !before.state.is_live() {
                let checked = before.state == State::Loaded && matches!(job.state, State::Loaded | State::Stale);
                prop_assert!(job == before || checked);
                prop_assert_eq!(job.ended, before.ended);
            }
            prop_assert!(job.transitions.len() <= TRANSITIONS_KEPT);
            prop_assert_eq!(job.transitions.back().map_or(State::Queued, |t| t.to), job.state);
            prop_assert_eq!(job.ended.is_some(), !job.state.is_live());
            if crash {
                let seen = job.sequence;
                let stored: Job = serde_json::from_slice(&serde_json::to_vec(&job).unwrap()).unwrap();
                prop_assert_eq!(&stored, &job);
                job = stored.recovered(Timestamp::UNIX_EPOCH);
                prop_assert!(job.sequence >= seen);
            }
        }
    }

    #[test]
    fn progress_never_goes_back_and_stays_within_totals(
        counts in prop::collection::vec((0u64..200, 0u64..200), 1..50),
    ) {
        let mut progress = Progress::new(1);
        for (cached, failed) in counts {
            let before = *progress.count();
            progress.advance(Count {
                files_total: 100, bytes_total: 100, files_cached: cached, bytes_cached: cached,
                files_failed: failed, bytes_failed: failed, ..Count::default()
            });
            let now = progress.count();
            prop_assert!(now.bytes_cached >= before.bytes_cached && now.bytes_cached <= 100);
            prop_assert!(now.files_failed >= before.files_failed && now.files_failed <= 100);
        }
    }

    #[test]
    fn any_text_is_a_path_or_refused(text in any::<String>()) {
        if let Ok(path) = AlluxioPath::try_from(text) {
            prop_assert!(path.as_str().starts_with('/') && !path.as_str().contains("//"));
            prop_assert_eq!(AlluxioPath::try_from(path.to_string()), Ok(path));
        }
    }
}

#[test]
fn numbers_beyond_any_sum_do_not_end_the_process() {
    let mut job = job();
    for event in [Event::Admitted, opened()] {
        job.apply(event, Timestamp::UNIX_EPOCH).unwrap();
    }
    (job.sequence, job.sequence_ceiling) = (u64::MAX, u64::MAX);
    (job.attempt, job.top_ups) = (u32::MAX, u32::MAX);
    (job.active, job.spec.timeout) = (Duration::MAX, Some(Duration::MAX));
    job.updated = Timestamp::MAX;
    let later = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1);
    assert_eq!(job.time_left(later), Some(Duration::ZERO));
    assert!(job.advance(Count::default(), later));
    let mut again = job.clone().recovered(later);
    assert_eq!((again.state, again.active, again.sequence), (State::Waiting, Duration::MAX, u64::MAX));
    for event in [opened(), Event::LengthsDoubted] {
        again.apply(event, later).unwrap();
    }
    // A listing that ended, in a load that waits since the end of time.
    job.shut_since = Some(Timestamp::MAX);
    job.progress.reset(Count { totals_exact: true, ..Count::default() });
    job.apply(Event::GateShut { reason: Reason::WorkersMissing, message: String::new() }, later).unwrap();
    assert_eq!(job.shut_since, Some(later));
}
