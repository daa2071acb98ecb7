//! A history that keeps the contract passes; each that breaks it in one way is found by the rule for that.

use super::super::history::{Answer, Event, Refusal, What};
use super::super::plan::Fault;
use super::*;
use crate::oracle::Verdict;
use alluxio_preload_api::v1::load::{Reason, State, Transition};
use alluxio_preload_api::v1::{Load, LoadSpec, StartLoadRequest};
use std::time::Duration;
use tonic::Code;

const ID: &str = "a";

fn request(id: &str, replicas: u32) -> StartLoadRequest {
    let spec = LoadSpec { path: format!("/{id}"), replicas: Some(replicas), ..LoadSpec::default() };
    StartLoadRequest { load_id: id.to_owned(), spec: Some(spec) }
}

/// The load after so many of its changes, each of which takes ten sequence numbers.
fn load(changes: usize) -> Box<Load> {
    let course = [
        State::Queued,
        State::Waiting,
        State::Listing,
        State::Loading,
        State::Verifying,
        State::Loaded,
        State::Stale,
    ];
    let mut load = Load {
        id: ID.to_owned(),
        uid: "uid".to_owned(),
        spec: request(ID, 1).spec,
        sequence: 1 + 10 * changes as u64,
        ..Load::default()
    };
    load.set_state(course[changes]);
    for (number, pair) in course.windows(2).take(changes).enumerate() {
        let sequence = 11 + 10 * number as u64;
        let mut change = Transition { sequence, message: "why".to_owned(), ..Transition::default() };
        change.set_from(pair[0]);
        change.set_to(pair[1]);
        if pair[1] == State::Stale {
            change.set_reason(Reason::Evicted);
        }
        load.transitions.push(change);
    }
    Box::new(load)
}

/// The load after so many changes, and then another one.
fn then(changes: usize, to: State, reason: Reason) -> Box<Load> {
    let mut load = load(changes);
    let mut change = Transition { sequence: 60, message: "why".to_owned(), ..Transition::default() };
    change.set_from(load.state());
    change.set_to(to);
    change.set_reason(reason);
    load.transitions.push(change);
    load.set_state(to);
    load.sequence = 60;
    load
}

fn refusal(code: Code) -> Refusal {
    Refusal { code, message: "words".to_owned() }
}

/// Events one after the other, a second each; settled before the last two.
fn history(whats: Vec<What>) -> History {
    let second = |number: usize| Duration::from_secs(number as u64);
    let settled = Some(second(whats.len().saturating_sub(2)));
    let events = whats.into_iter().enumerate().map(|(number, what)| Event {
        begun: second(number),
        ended: second(number) + Duration::from_millis(900),
        what,
    });
    History { events: events.collect(), settled }
}

fn get(answer: Answer<Box<Load>>) -> What {
    What::Get { id: ID.to_owned(), answer }
}

fn told(changes: usize) -> What {
    What::Told { stream: 1, load: load(changes) }
}

fn ended(follow: bool) -> What {
    What::StreamEnded { stream: 1, id: ID.to_owned(), follow, answer: Ok(()) }
}

/// Everything as it should be.
fn good() -> Vec<What> {
    vec![
        What::Start { request: request(ID, 1), answer: Ok(load(0)) },
        What::Start { request: request(ID, 2), answer: Err(refusal(Code::AlreadyExists)) },
        get(Err(refusal(Code::Unavailable))),
        told(2),
        told(3),
        told(5),
        ended(false),
        What::Disk { id: ID.to_owned(), verdict: Verdict::True },
        What::List { answer: Ok(vec![*load(5)]) },
        get(Ok(load(5))),
    ]
}

/// The rules that a history breaks.
fn broken(whats: Vec<What>) -> Vec<&'static str> {
    let mut rules: Vec<_> = check(&history(whats)).into_iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

/// `good` with another event in the place of one.
fn with(place: usize, what: What) -> Vec<What> {
    let mut whats = good();
    whats[place] = what;
    whats
}

#[test]
fn what_keeps_the_contract_passes() {
    assert_eq!(check(&history(good())), []);
}

#[test]
fn a_load_that_is_forgotten() {
    assert_eq!(broken(with(2, get(Err(refusal(Code::NotFound))))), ["kept"]);
    assert_eq!(broken(with(8, What::List { answer: Ok(vec![]) })), ["kept"]);
}

#[test]
fn a_question_that_came_before_the_answer_may_find_nothing() {
    let mut history = history(with(2, get(Err(refusal(Code::NotFound)))));
    history.events[2].begun = Duration::ZERO;
    assert_eq!(check(&history), []);
}

#[test]
fn an_id_that_changes_hands() {
    let mut other = load(5);
    other.uid = "another".to_owned();
    assert_eq!(broken(with(8, What::List { answer: Ok(vec![*other]) })), ["one load per id", "one course"]);
}

#[test]
fn an_answer_to_another_question() {
    let whats = with(1, What::Start { request: request(ID, 2), answer: Ok(load(1)) });
    assert_eq!(broken(whats), ["as wished"]);
    // Although there is somebody who had asked for another one.
    let mut refused = good();
    refused[2] = What::Start { request: request(ID, 1), answer: Err(refusal(Code::AlreadyExists)) };
    assert_eq!(broken(refused), ["as wished"]);
    let nobody_else =
        vec![What::Start { request: request("b", 1), answer: Err(refusal(Code::AlreadyExists)) }];
    assert_eq!(broken(nobody_else), ["as wished"]);
}

#[test]
fn confusion() {
    for code in [Code::Internal, Code::FailedPrecondition, Code::AlreadyExists] {
        assert_eq!(broken(with(2, get(Err(refusal(code))))), ["known refusals"]);
    }
    // With a disk that was read-only it is an answer.
    let mut disk = with(2, get(Err(refusal(Code::FailedPrecondition))));
    disk.insert(2, What::Fault(Fault::ReadOnlyDisk, "for 1 s".to_owned()));
    assert_eq!(check(&history(disk)), []);
    let lost = What::Start { request: request(ID, 1), answer: Err(refusal(Code::NotFound)) };
    assert_eq!(broken(with(1, lost)), ["known refusals"]);
}

#[test]
fn a_sequence_that_goes_back() {
    assert_eq!(broken(with(8, get(Ok(load(3))))), ["only forward"]);
    // While a question is under way, newer answers may overtake it.
    let mut history = history(with(8, get(Ok(load(3)))));
    history.events[8].begun = Duration::ZERO;
    assert_eq!(check(&history), []);
    // In one stream they may not.
    assert_eq!(broken(with(4, told(1))), ["only forward"]);
}

#[test]
fn one_number_for_two_states() {
    let mut other = load(5);
    other.message = "something else".to_owned();
    assert_eq!(broken(with(8, What::List { answer: Ok(vec![*other]) })), ["one course"]);
}

#[test]
fn a_change_that_is_told_otherwise_later() {
    let mut other = load(5);
    (other.sequence, other.transitions[1].message) = (60, "something else".to_owned());
    assert_eq!(broken(with(9, get(Ok(other)))), ["one course"]);
    let mut left_out = load(5);
    left_out.sequence = 60;
    left_out.transitions.remove(1);
    assert_eq!(broken(with(9, get(Ok(left_out)))), ["one course", "legal course"]);
}

#[test]
fn a_course_that_begins_anew() {
    // After a kill, all changes are forgotten and made once more, with other numbers.
    let mut anew = load(5);
    anew.sequence = 1060;
    for change in &mut anew.transitions {
        change.sequence += 1000;
    }
    assert_eq!(broken(with(9, get(Ok(anew)))), ["one course"]);
    let mut forgetful = load(5);
    (forgetful.sequence, forgetful.transitions) = (60, Vec::new());
    assert_eq!(broken(with(9, get(Ok(forgetful)))), ["one course", "legal course"]);
}

#[test]
fn a_failure_without_a_reason() {
    let whats = |reason| {
        let started = What::Start { request: request(ID, 1), answer: Ok(load(0)) };
        vec![started, told(3), get(Ok(then(3, State::Failed, reason)))]
    };
    assert_eq!(broken(whats(Reason::Incomplete)), Vec::<&str>::new());
    assert_eq!(broken(whats(Reason::Unspecified)), ["legal course"]);
    assert_eq!(broken(whats(Reason::Internal)), ["legal course"]);
}

#[test]
fn a_step_that_is_none() {
    let mut jumped = load(5);
    (jumped.sequence, jumped.state) = (60, State::Failed.into());
    assert_eq!(broken(with(9, get(Ok(jumped)))), ["legal course", "ended"]);
    let mut back = load(3);
    let mut change = Transition { sequence: 35, ..Transition::default() };
    change.set_from(State::Loading);
    change.set_to(State::Waiting);
    back.transitions.push(change);
    back.set_state(State::Waiting);
    back.sequence = 35;
    // Back to WAITING without a word; nobody else has seen it.
    let only = vec![What::Get { id: ID.to_owned(), answer: Ok(back) }];
    assert!(broken(only).contains(&"legal course"));
}

#[test]
fn a_watch_that_ends_too_early() {
    assert_eq!(broken(with(5, told(4))), ["streams"]);
    // One that follows stays beyond LOADED.
    assert_eq!(broken(with(6, ended(true))), ["streams"]);
}

#[test]
fn a_load_that_is_never_taken() {
    let refused = || What::Start { request: request("b", 1), answer: Err(refusal(Code::Unavailable)) };
    let whats = |more: Option<What>| good().into_iter().chain([refused()]).chain(more).collect::<Vec<_>>();
    assert_eq!(broken(whats(None)), ["taken"]);
    let there = Err(refusal(Code::AlreadyExists));
    assert!(!broken(whats(Some(What::Start { request: request("b", 1), answer: there }))).contains(&"taken"));
}

#[test]
fn a_load_that_never_ends() {
    let mut whats = good();
    whats.truncate(5);
    whats.push(What::List { answer: Ok(vec![*load(3)]) });
    whats.push(get(Ok(load(3))));
    assert_eq!(broken(whats), ["ended"]);
    assert_eq!(broken(with(9, get(Err(refusal(Code::Unavailable))))), ["ended"]);
    assert!(check(&History { settled: None, ..history(good()) }).iter().any(|found| found.rule == "ended"));
}

#[test]
fn a_load_that_nobody_cancelled() {
    let whats = |asked: bool| {
        let mut whats = vec![What::Start { request: request(ID, 1), answer: Ok(load(0)) }];
        if asked {
            whats.push(What::Cancel { id: ID.to_owned(), answer: Err(refusal(Code::DeadlineExceeded)) });
        }
        whats.push(told(3));
        whats.push(get(Ok(then(3, State::Cancelled, Reason::CancelledByUser))));
        whats
    };
    assert_eq!(broken(whats(true)), Vec::<&str>::new());
    assert_eq!(broken(whats(false)), ["ended"]);
}

#[test]
fn a_cancellation_that_is_forgotten() {
    let whats = |answer| {
        let mut whats = good();
        whats.insert(4, What::Cancel { id: ID.to_owned(), answer });
        whats
    };
    assert_eq!(broken(whats(Ok(load(2)))), ["ended"]);
    assert_eq!(broken(whats(Ok(load(5)))), ["only forward"]);
    assert_eq!(broken(whats(Err(refusal(Code::DeadlineExceeded)))), Vec::<&str>::new());
}

#[test]
fn two_watchers_who_hear_two_ends() {
    let mut whats = good();
    let other = then(3, State::Failed, Reason::Incomplete);
    whats.insert(7, What::Told { stream: 2, load: other });
    let answer = Ok(());
    whats.insert(8, What::StreamEnded { stream: 2, id: ID.to_owned(), follow: false, answer });
    assert!(broken(whats).contains(&"streams"));
}

#[test]
fn a_lie() {
    let verdict = Verdict::False("one block".to_owned());
    assert_eq!(broken(with(7, What::Disk { id: ID.to_owned(), verdict })), ["loaded means loaded"]);
    let excused = What::Disk { id: ID.to_owned(), verdict: Verdict::DiedMeanwhile };
    assert_eq!(broken(with(7, excused)), Vec::<&str>::new());
    // Nobody looked.
    assert_eq!(broken(with(7, get(Ok(load(5))))), ["loaded means loaded"]);
}

#[test]
fn what_is_left() {
    assert_eq!(broken(with(3, What::Left("a process".to_owned()))), ["nothing left"]);
    let two = What::TwoCommands { path: "/a".to_owned(), commands: vec!["1".to_owned(), "2".to_owned()] };
    assert_eq!(broken(with(3, two)), ["nothing left"]);
}
