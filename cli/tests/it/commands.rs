//! The commands that ask once: what they send, what they print, how they end.

use crate::{
    fixture::{because, life, preloadctl, queued, then},
    server::{Script, Server},
};
use alluxio_preload_api::v1::{
    Failure, ListFailuresResponse, ListLoadsRequest, ListLoadsResponse, Load, StartLoadRequest,
    load::{Reason, State},
    load_spec::{Engine, LoadMetadata},
};
use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

fn starting(answer: impl Fn() -> Result<Load, Status> + Send + Sync + 'static) -> Server {
    Server::tcp(Script { start: Box::new(move |_, _| answer()), ..Script::default() })
}

#[tokio::test]
async fn start_sends_every_wish() {
    let seen: Arc<Mutex<Vec<StartLoadRequest>>> = Arc::default();
    let requests = seen.clone();
    let server = Server::tcp(Script {
        start: Box::new(move |_, request| {
            requests.lock().unwrap().push(request.into_inner());
            Ok(queued())
        }),
        ..Script::default()
    });
    let plain = preloadctl(&server.address, &["start", "/data"]).await;
    assert_eq!((plain.code, plain.stdout.as_str()), (Some(0), "2023-11-14T22:13:21Z a QUEUED\n"));
    let options = "start /データ/x --id a --replicas 2 --engine native --load-metadata always \
                   --min-workers 3 --allow-evict --wait-timeout 90s --timeout 1h30m --max-attempts 5 \
                   --label team=ml --label empty= --reverify-interval 10m";
    let ran = preloadctl(&server.address, &options.split_whitespace().collect::<Vec<_>>()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");

    let seen = seen.lock().unwrap();
    let spec = seen[0].spec.clone().unwrap();
    assert_eq!((seen[0].load_id.as_str(), spec.path.as_str(), spec.replicas), ("", "/data", None));
    assert_eq!((spec.wait_timeout, spec.timeout, spec.max_attempts), (None, None, 0));
    assert_eq!(spec.reverify_interval, None);
    let spec = seen[1].spec.clone().unwrap();
    assert_eq!((seen[1].load_id.as_str(), spec.path.as_str()), ("a", "/データ/x"));
    assert_eq!((spec.replicas, spec.min_workers, spec.max_attempts), (Some(2), 3, 5));
    assert_eq!((spec.engine(), spec.load_metadata()), (Engine::Native, LoadMetadata::Always));
    assert!(spec.allow_evict);
    assert_eq!(spec.wait_timeout.unwrap().seconds, 90);
    assert_eq!(spec.timeout.unwrap().seconds, 5_400);
    assert_eq!(spec.reverify_interval.unwrap().seconds, 600);
    let labels = [("team", "ml"), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(spec.labels, HashMap::from(labels));
}

#[tokio::test]
async fn starting_a_load_that_has_ended_tells_how() {
    for (load, code) in [(life().pop().unwrap(), 0), (then(&queued(), State::Failed), 1)] {
        let state = load.state();
        let server = starting(move || Ok(load.clone()));
        let ran = preloadctl(&server.address, &["start", "/data", "--id", "a"]).await;
        assert_eq!(ran.code, Some(code), "{state:?}: {ran:?}");
    }
}

#[tokio::test]
async fn refusals_have_their_code_and_their_next_step() {
    let fields = ErrorDetails::with_bad_request(vec![FieldViolation::new("spec.path", "must begin with /")]);
    let retry = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
    let exists = ErrorDetails::with_error_info("SPEC_DIFFERS", "preload.dev", HashMap::new());
    for (status, exit, line) in [
        (Status::with_error_details(Code::InvalidArgument, "bad", fields), 2, "field spec.path: must begin"),
        (Status::with_error_details(Code::ResourceExhausted, "full", retry), 5, "next: try again in 7 s"),
        (Status::with_error_details(Code::AlreadyExists, "other", exists), 5, "reason: SPEC_DIFFERS"),
        (Status::not_found("none"), 4, "next: list the loads"),
        (Status::failed_precondition("disk full"), 5, "h:1: disk full"),
        (Status::unauthenticated("who"), 5, "next: give a token"),
        (Status::unimplemented("native"), 5, "next: leave this wish out"),
        (Status::internal("bug\u{1b}[2J"), 5, "bug\\u{1b}[2J"),
        (Status::unavailable("stopping"), 3, "next: check the address"),
    ] {
        let code = status.code();
        let server = starting(move || Err(status.clone()));
        let ran = preloadctl(&server.address, &["start", "data"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(exit), ""), "{code:?}: {ran:?}");
        let stderr = ran.stderr.replace(&server.address, "h:1");
        assert!(stderr.starts_with("error: h:1: ") && stderr.contains(line), "{code:?}: {stderr}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_a_refusal() {
    let listener = TcpListener::bind("127.0.61.1:0").unwrap();
    let tcp = listener.local_addr().unwrap().to_string();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/none.sock", folder.path().display());
    for (address, cause) in [(tcp, "Connection refused"), (unix, "No such file")] {
        for args in [&["get", "a"][..], &["watch", "a"], &["start", "/data"], &["list"]] {
            let ran = preloadctl(&address, args).await;
            assert_eq!(ran.code, Some(3), "{args:?}: {ran:?}");
            let named = ran.stderr.contains(&address) && ran.stderr.contains(cause);
            assert!(named && !ran.stderr.contains("may have been started"), "{args:?}: {}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_2_and_names_the_accepted_form() {
    for (args, hint) in [
        (&["get"][..], "<ID>"),
        (&["start", "/data", "--timeout", "90"], "1h30m"),
        (&["start", "/data", "--label", "x"], "KEY=VALUE"),
        (&["list", "--state", "DONE"], "VERIFYING"),
        (&["--address", "nowhere", "list"], "unix:/PATH"),
        (&["--address", "https://h:1", "list"], "certificate"),
        (&["--tls-ca", "/nonexistent/ca.pem", "list"], "/nonexistent/ca.pem"),
        (&["--token-file", "/nonexistent/token", "list"], "/nonexistent/token"),
    ] {
        let ran = preloadctl("127.0.61.1:1", args).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(hint), "{args:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn get_shows_a_card_and_never_judges() {
    let mut failed = because(then(&queued(), State::Failed), Reason::Incomplete, "3 files\u{9b}2J missing");
    failed.failures = 3;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::unix(
        &folder.path().join("p.sock"),
        Script {
            get: Box::new(move |_, request| {
                assert_eq!(request.get_ref().load_id, "a");
                Ok(failed.clone())
            }),
            ..Script::default()
        },
    );
    let ran = preloadctl(&server.address, &["get", "a"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for line in [
        "state     FAILED  INCOMPLETE: 3 files\\u{9b}2J missing",
        "path      /data",
        "replicas  2",
        "failures  3 files: preloadctl failures a",
        "  2023-11-14T22:13:22Z a FAILED  INCOMPLETE: 3 files\\u{9b}2J missing",
    ] {
        assert!(ran.stdout.lines().any(|l| l == line), "no line `{line}` in\n{}", ran.stdout);
    }
    let ran = preloadctl(&server.address, &["get", "a", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["reason"].as_str(), json["failures"].as_str()), (Some("INCOMPLETE"), Some("3")));
    assert_eq!(ran.stdout.lines().count(), 1);
}

fn load_of_many(number: usize) -> Load {
    let load = if number.is_multiple_of(2) { queued() } else { life().pop().unwrap() };
    Load { id: format!("load-{number:03}"), create_time: None, ..load }
}

/// 250 loads, or as many as `loads`, in pages of what the client asks for.
fn paging(loads: usize, seen: Arc<Mutex<Vec<ListLoadsRequest>>>) -> Server {
    Server::tcp(Script {
        list: Box::new(move |_, request| {
            let request = request.into_inner();
            let from: usize = request.page_token.parse().unwrap_or(0);
            let to = loads.min(from + usize::try_from(request.page_size).unwrap());
            seen.lock().unwrap().push(request);
            let next_page_token = if to < loads { to.to_string() } else { String::new() };
            Ok(ListLoadsResponse { loads: (from..to).map(load_of_many).collect(), next_page_token })
        }),
        ..Script::default()
    })
}

#[tokio::test]
async fn list_goes_through_all_pages_in_one_table() {
    let seen = Arc::default();
    let server = paging(250, Arc::clone(&seen));
    let args = "list --state loaded --state queued --path /d --label team=ml";
    let ran = preloadctl(&server.address, &args.split(' ').collect::<Vec<_>>()).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 251));
    let top: Vec<_> = ran.stdout.lines().take(3).collect();
    assert_eq!(
        top,
        [
            "ID        STATE   PATH   REPLICAS  PROGRESS  AGE  MESSAGE",
            "load-000  QUEUED  /data         2         -    -",
            "load-001  LOADED  /data         2      100%    -",
        ]
    );
    let seen = seen.lock().unwrap();
    let tokens: Vec<_> = seen.iter().map(|r| r.page_token.as_str()).collect();
    assert_eq!(tokens, ["", "100", "200"]);
    let filter = seen[2].filter.clone().unwrap();
    assert_eq!(filter.states, [State::Loaded as i32, State::Queued as i32]);
    assert_eq!((filter.path_prefix.as_str(), filter.labels["team"].as_str()), ("/d", "ml"));
}

#[tokio::test]
async fn list_stops_at_the_limit_and_prints_json_by_page() {
    let seen = Arc::default();
    let server = paging(250, Arc::clone(&seen));
    let ran = preloadctl(&server.address, &["list", "--limit", "120", "-o", "json"]).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 120));
    let sizes: Vec<_> = seen.lock().unwrap().iter().map(|r| r.page_size).collect();
    assert_eq!(sizes, [100, 20]);

    let none = paging(0, Arc::default());
    let ran = preloadctl(&none.address, &["list"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", "no loads\n"));
}

#[tokio::test]
async fn a_server_that_repeats_a_page_does_not_hold_us() {
    let server = Server::tcp(Script {
        list: Box::new(|_, _| {
            Ok(ListLoadsResponse { loads: vec![queued()], next_page_token: "again".into() })
        }),
        ..Script::default()
    });
    let ran = preloadctl(&server.address, &["list"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("same page twice"), "{ran:?}");
}

#[tokio::test]
async fn failures_are_a_table_and_say_how_many_there_are() {
    let server = Server::tcp(Script {
        failures: Box::new(|_, request| {
            let request = request.into_inner();
            let from: u64 = request.page_token.parse().unwrap_or(0);
            let failure = |n: u64| Failure {
                path: format!("/データ/f{n}\n"),
                length: 1 << 20,
                bytes_missing: 1 << 21,
                replicas_seen: 0,
                reason: "not found in the UFS".into(),
            };
            let size = u64::try_from(request.page_size).unwrap().min(2);
            Ok(ListFailuresResponse {
                failures: (from..from + size).map(failure).collect(),
                next_page_token: (from + size).to_string(),
                total: 12_345,
            })
        }),
        ..Script::default()
    });
    let ran = preloadctl(&server.address, &["failures", "a", "--limit", "3"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        "\
PATH              SIZE   MISSING  COPIES  REASON
/データ/f0\\n  1.00 MiB  2.00 MiB       0  not found in the UFS
/データ/f1\\n  1.00 MiB  2.00 MiB       0  not found in the UFS
/データ/f2\\n  1.00 MiB  2.00 MiB       0  not found in the UFS
3 of 12,345
"
    );
    let ran = preloadctl(&server.address, &["failures", "a", "--limit", "3", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (json["path"].as_str(), json["bytesMissing"].as_str()),
        (Some("/データ/f2\n"), Some("2097152"))
    );
}

#[tokio::test]
async fn without_failures_it_says_why_there_are_none() {
    for (load, words) in [
        (life().pop().unwrap(), "none: every file is loaded\n"),
        (then(&queued(), State::Cancelled), "none are known: the load ended"),
        (queued(), "none are known yet: the load looks"),
    ] {
        let server = Server::tcp(Script {
            failures: Box::new(|_, _| Ok(ListFailuresResponse::default())),
            get: Box::new(move |_, _| Ok(load.clone())),
            ..Script::default()
        });
        let ran = preloadctl(&server.address, &["failures", "a"]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.starts_with(words), "{ran:?}");
        let ran = preloadctl(&server.address, &["failures", "a", "-o", "json"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    }
}

#[tokio::test]
async fn an_empty_id_is_refused_and_not_replaced() {
    let ran = preloadctl("127.0.0.1:1", &["start", "/data", "--id", ""]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--id"), "{ran:?}");
}

#[tokio::test]
async fn verify_tells_whether_the_cache_still_holds_everything() {
    let words = "3 of 1000 files (12.0 KiB) have left the cache; ListFailures names them";
    let mut stale = because(then(&life().pop().unwrap(), State::Stale), Reason::Evicted, words);
    stale.failures = 3;
    let server = Server::tcp(Script {
        verify: Box::new(move |_, request| match request.get_ref().load_id.as_str() {
            "a" => Ok(Load { verify_time: crate::fixture::at(77), ..life().pop().unwrap() }),
            "b" => Ok(stale.clone()),
            _ => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
                Err(Status::with_error_details(Code::Unavailable, "worker h:1 is silent", details))
            }
        }),
        ..Script::default()
    });
    let ran = preloadctl(&server.address, &["verify", "a"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(
        ran.stdout.starts_with("2023-11-14T22:14:37Z a LOADED  4.00 GiB in 1,000 files"),
        "{}",
        ran.stdout
    );
    let ran = preloadctl(&server.address, &["verify", "b"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let line = format!("a STALE  EVICTED: {words}; 3 files not loaded: preloadctl failures a\n");
    assert!(ran.stdout.ends_with(&line), "{}", ran.stdout);
    assert!(ran.stderr.contains("next: preloadctl start /data"), "{}", ran.stderr);
    let ran = preloadctl(&server.address, &["verify", "b", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (ran.code, json["state"].as_str(), json["reason"].as_str()),
        (Some(1), Some("STALE"), Some("EVICTED"))
    );
    let ran = preloadctl(&server.address, &["verify", "c"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{ran:?}");
    assert!(ran.stderr.contains("silent") && ran.stderr.contains("next: try again in 5 s"), "{}", ran.stderr);
}

#[tokio::test]
async fn cancel_and_delete_name_their_load() {
    let server = Server::tcp(Script {
        cancel: Box::new(|_, request| {
            assert_eq!(request.get_ref().load_id, "a");
            Ok(queued())
        }),
        delete: Box::new(|_, request| match request.get_ref().load_id.as_str() {
            "a" => Ok(()),
            _ => Err(Status::failed_precondition("load b is LOADING")),
        }),
        ..Script::default()
    });
    let ran = preloadctl(&server.address, &["cancel", "a"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "2023-11-14T22:13:21Z a QUEUED\n"));
    let ran = preloadctl(&server.address, &["delete", "a"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(preloadctl(&server.address, &["delete", "b"]).await.code, Some(5));
}
