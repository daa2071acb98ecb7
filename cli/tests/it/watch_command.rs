//! `watch` and `--watch` of the real program: output in a pipe, exit codes, cuts, Ctrl-C.

use crate::{
    fixture::{because, command, ended, life, preloadctl, queued, then},
    server::{Script, Server, Step, sends},
};
use alluxio_preload_api::v1::load::{Reason, State};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::Status;

/// Start and get answer with the queued load; each call of watch gets the next of `streams`.
fn script(streams: Vec<Vec<Step>>) -> Script {
    Script {
        start: Box::new(|_, _| Ok(queued())),
        get: Box::new(|_, _| Ok(queued())),
        cancel: Box::new(|_, _| Ok(queued())),
        watch: Box::new(move |call, _| {
            streams.get(call).cloned().ok_or_else(|| Status::data_loss("watched too often"))
        }),
        ..Script::default()
    }
}

const LIFE: &str = "\
2023-11-14T22:13:21Z a QUEUED
2023-11-14T22:13:22Z a WAITING  WORKERS_MISSING: 1 of 2 workers are live
2023-11-14T22:13:23Z a LISTING
2023-11-14T22:13:24Z a LOADING  0%, 0 B of 4.00 GiB, 0 of 1,000 files
2023-11-14T22:13:25Z a LOADING  25%, 1.00 GiB of 4.00 GiB, 250 of 1,000 files, 100.00 MiB/s, 31s left
2023-11-14T22:13:27Z a LOADING  75%, 3.00 GiB of 4.00 GiB, 750 of 1,000 files, 100.00 MiB/s, 11s left
2023-11-14T22:13:29Z a VERIFYING  100%, 4.00 GiB of 4.00 GiB, 1,000 of 1,000 files, 100.00 MiB/s
2023-11-14T22:13:30Z a LOADED  4.00 GiB in 1,000 files at 2 replicas; took 7s
";

#[tokio::test]
async fn a_pipe_gets_each_state_and_progress_in_steps() {
    let server = Server::tcp(script(vec![sends(&life())]));
    let ran = preloadctl(&server.address, &["start", "/data", "--id", "a", "--watch"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), LIFE, ""));
}

#[tokio::test]
async fn a_restart_of_the_sidecar_loses_no_state() {
    let life = life();
    let streams = vec![
        [sends(&life[..2]), vec![Step::Die]].concat(),
        vec![Step::Fail(Status::unavailable("recovering"))],
        sends(&life[7..]),
    ];
    let server = Server::tcp(script(streams));
    let ran = preloadctl(&server.address, &["watch", "a"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let states: Vec<_> = ran.stdout.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(states, ["QUEUED", "WAITING", "LISTING", "LOADING", "VERIFYING", "LOADED"]);
    let told =
        |line: &str| line.starts_with("connection lost, next try in ") && line.ends_with(": recovering");
    assert!(ran.stderr.lines().any(told), "{}", ran.stderr);
}

#[tokio::test]
async fn the_exit_code_tells_how_the_load_ended() {
    let loaded = life().pop().unwrap();
    let failed = because(then(&queued(), State::Failed), Reason::Incomplete, "3 files are missing");
    let cancelled = then(&queued(), State::Cancelled);
    let stale = then(&loaded, State::Stale);
    for (end, args, code) in [
        (&loaded, &["watch", "a"][..], 0),
        (&failed, &["watch", "a"], 1),
        (&cancelled, &["watch", "a"], 1),
        (&stale, &["watch", "a"], 1),
        (&stale, &["watch", "a", "--follow"], 1),
        (&failed, &["start", "/data", "--watch"], 1),
        (&cancelled, &["cancel", "a", "--watch"], 0),
        (&loaded, &["cancel", "a", "--watch"], 1),
    ] {
        let server = Server::tcp(script(vec![sends(std::slice::from_ref(end))]));
        let ran = preloadctl(&server.address, args).await;
        assert_eq!(ran.code, Some(code), "{args:?} of a load that is {:?}: {ran:?}", end.state());
    }
}

#[tokio::test]
async fn a_load_deleted_while_it_is_followed_is_not_found() {
    let loaded = life().pop().unwrap();
    let stream = [sends(&[loaded]), vec![Step::Fail(Status::not_found("load a was deleted"))]].concat();
    let server = Server::tcp(script(vec![stream]));
    let ran = preloadctl(&server.address, &["watch", "a", "--follow"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("load a was deleted"), "{ran:?}");
}

#[tokio::test]
async fn json_is_one_object_for_each_message_without_repetitions() {
    let life = life();
    let heartbeat = [life[1].clone(), life[1].clone(), life[8].clone()];
    let server = Server::tcp(script(vec![sends(&heartbeat)]));
    let ran = preloadctl(&server.address, &["watch", "a", "-o", "json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let loads: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<_> = loads.iter().map(|load| load["sequence"].as_str().unwrap()).collect();
    assert_eq!(sequences, ["1", "2", "10"]);
    assert_eq!(loads[2]["state"], "LOADED");
}

#[tokio::test]
async fn ctrl_c_leaves_the_load_and_says_how_to_cancel_it() {
    let stream = [sends(&life()[..4]), vec![Step::Hang]].concat();
    let server = Server::tcp(script(vec![stream]));
    let mut child = command(&server.address, &["start", "/data", "--watch"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(stdout.next_line().await.unwrap().unwrap().contains("QUEUED"));
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGINT).unwrap();
    while stdout.next_line().await.unwrap().is_some() {}
    let ran = ended(child).await;
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(ran.stderr, "stopped watching; load a goes on; to cancel it: preloadctl cancel a\n");
}

#[tokio::test]
async fn a_closed_pipe_is_no_success() {
    let server = Server::tcp(script(vec![sends(&life())]));
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let mut command = command(&server.address, &["watch", "a"]);
    command.stdout(writer);
    let ran = ended(command.spawn().unwrap()).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(74), ""));
}
