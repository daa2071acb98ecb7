//! Who gets in, and how: grpcurl, reflection, TLS, tokens, certificates, the Unix socket, the admin port.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use alluxio_preload_api::v1::{GetLoadRequest, StartLoadRequest, load::State};
use anyhow::{Context, Result, bail};
use preload_tests::{Authority, MIB, Sandbox, Setup, Sidecar, grpcurl, http, leash, load, shared, wait};
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICE: &str = "preload.v1.PreloadService";

/// `grpcurl ARGUMENTS... ADDRESS CALL`, which must succeed.
async fn call(sandbox: &Sandbox, arguments: &[&str], address: &str, call: &[&str]) -> Result<String> {
    grpcurl(sandbox, &[arguments, &[address], call].concat()).await?.success()
}

/// The same, which must fail; what it said.
async fn refused(sandbox: &Sandbox, arguments: &[&str], address: &str, call: &[&str]) -> Result<String> {
    let output = grpcurl(sandbox, &[arguments, &[address], call].concat()).await?;
    if output.exit.success() {
        bail!("grpcurl {arguments:?} {call:?} was let in: {}", output.stdout);
    }
    Ok(output.stderr)
}

#[tokio::test]
async fn grpcurl_needs_no_proto_file() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("grpcurl")?;
    data.files(4, MIB)?;
    let sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    let (sandbox, address) = (cluster.sandbox(), sidecar.address());

    let listed = call(sandbox, &["-plaintext"], address, &["list"]).await?;
    for service in [SERVICE, "grpc.health.v1.Health"] {
        assert!(listed.lines().any(|line| line == service), "{listed}");
    }
    let described = call(sandbox, &["-plaintext"], address, &["describe", "preload.v1.Load"]).await?;
    assert!(described.contains("enum State") && described.contains("WAITING"), "{described}");
    let healthy = call(sandbox, &["-plaintext"], address, &["grpc.health.v1.Health/Check"]).await?;
    assert!(healthy.contains("SERVING"), "{healthy}");

    let wish = format!(r#"{{"loadId":"a","spec":{{"path":"{}","replicas":1}}}}"#, data.path());
    let start = format!("{SERVICE}/StartLoad");
    let started = call(sandbox, &["-plaintext", "-d", &wish], address, &[&start]).await?;
    let started: serde_json::Value = serde_json::from_str(&started)?;
    assert_eq!((started["id"].as_str(), started["spec"]["path"].as_str()), (Some("a"), Some(data.path())));
    let relative = r#"{"spec":{"path":"data"}}"#;
    let said = refused(sandbox, &["-plaintext", "-d", relative], address, &[&start]).await?;
    assert!(said.contains("google.rpc.BadRequest") && said.contains(r#""field": "spec.path""#), "{said}");
    let watch = format!("{SERVICE}/WatchLoad");
    let watched = call(sandbox, &["-plaintext", "-d", r#"{"loadId":"a"}"#], address, &[&watch]).await?;
    let messages: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&watched).into_iter().collect::<Result<_, _>>()?;
    let last = messages.last().context("no message")?;
    assert_eq!(last["state"], "LOADED");
    assert_eq!(last["progress"]["bytesCached"], (4 * MIB).to_string());
    assert!(messages.len() > 1, "a watch shows more than the end: {watched}");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    sidecar.assert_no_errors()
}

#[tokio::test]
async fn reflection_speaks_v1alpha_too() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let channel = Endpoint::from_shared(format!("http://{}", sidecar.address()))?.connect().await?;
    let mut client = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
    let answer = answers.next().await.context("no answer")??;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        bail!("another answer: {answer:?}")
    };
    assert!(list.service.iter().any(|service| service.name == SERVICE), "{list:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_over_tls_lets_in_and_can_be_rotated() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let authority = Authority::new(&sandbox.folder("tls")?)?;
    let server = authority.identity(&["localhost"])?;
    let token = sandbox.directory().join("token");
    fs::write(&token, "first\n")?;
    let sidecar =
        Setup::alone(&sandbox).tls(&server).argument("--token-file").argument(&token).start().await?;
    let address = sidecar.address();
    let authority = authority.certificate().display().to_string();
    let tls = ["-cacert", authority.as_str(), "-servername", "localhost"];
    let with = |token: &str| format!("authorization: Bearer {token}");
    let list = format!("{SERVICE}/ListLoads");

    let (first, second) = (with("first"), with("second"));
    let accepted = [&tls[..], &["-H", &first]].concat();
    call(&sandbox, &accepted, address, &[&list]).await?;
    assert!(call(&sandbox, &accepted, address, &["list"]).await?.contains(SERVICE));
    for arguments in [tls.to_vec(), [&tls[..], &["-H", &second]].concat()] {
        let said = refused(&sandbox, &arguments, address, &[&list]).await?;
        assert!(said.contains("bearer token"), "{said}");
    }
    refused(&sandbox, &["-plaintext", "-H", &first], address, &[&list]).await?;
    // Probes carry no token.
    let pem = fs::read_to_string(&authority)?;
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
    let channel =
        Endpoint::from_shared(format!("https://{address}"))?.tls_config(trusting)?.connect().await?;
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await?.into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);

    fs::write(&token, "second\n")?;
    let accepted = [&tls[..], &["-H", &second]].concat();
    wait::until("the new token to count", wait::LIMIT, async || {
        call(&sandbox, &accepted, address, &[&list]).await.map(Some)
    })
    .await?;
    refused(&sandbox, &[&tls[..], &["-H", &first]].concat(), address, &[&list]).await?;
    let log = sidecar.log();
    assert!(!log.contains("first") && !log.contains("second"), "a token is in the log");
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_lets_in() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let authority = Authority::new(&sandbox.folder("tls")?)?;
    let stranger = Authority::new(&sandbox.folder("stranger")?)?;
    let server = authority.identity(&["localhost"])?;
    let sidecar = Setup::alone(&sandbox)
        .tls(&server)
        .argument("--tls-client-ca")
        .argument(authority.certificate())
        .start()
        .await?;
    let ca = authority.certificate().display().to_string();
    let arguments = |identity: &preload_tests::certificates::Identity| {
        let (cert, key) = (identity.certificate.display().to_string(), identity.key.display().to_string());
        ["-cacert", &ca, "-servername", "localhost", "-cert", &cert, "-key", &key].map(str::to_owned)
    };
    let list = format!("{SERVICE}/ListLoads");
    let ours = arguments(&authority.identity(&["client"])?);
    call(&sandbox, &ours.each_ref().map(String::as_str), sidecar.address(), &[&list]).await?;
    let theirs = arguments(&stranger.identity(&["client"])?);
    refused(&sandbox, &theirs.each_ref().map(String::as_str), sidecar.address(), &[&list]).await?;
    refused(&sandbox, &["-cacert", &ca, "-servername", "localhost"], sidecar.address(), &[&list]).await?;
    Ok(())
}

#[tokio::test]
async fn the_unix_socket_is_private_and_replaced_after_a_crash() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let socket = sandbox.directory().join("s.sock");
    let mut sidecar = Setup::alone(&sandbox).argument("--unix-socket").argument(&socket).start().await?;
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600);
    let target = format!("unix://{}", socket.display());
    assert!(call(&sandbox, &["-plaintext"], &target, &["list"]).await?.contains(SERVICE));
    sidecar.kill9().await?;
    assert!(socket.exists(), "a killed process leaves its socket");
    sidecar.restart().await?;
    wait::until("the socket to be served", wait::LIMIT, async || {
        call(&sandbox, &["-plaintext"], &target, &["list"]).await.map(Some)
    })
    .await?;
    assert!(sidecar.terminate().await?.success());
    assert!(!socket.exists(), "a stop removes it");
    Ok(())
}

#[tokio::test]
async fn bad_flags_are_refused_with_the_way_out() -> Result<()> {
    let sandbox = Sandbox::new()?;
    for (arguments, said) in [
        (vec!["--listen", "0.0.0.0:0"], "--allow-insecure"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--tls-cert", "c"], "--tls-key"),
        (vec!["--alluxio-master", "host"], "HOST:PORT"),
        (vec!["--log", "a=b=c"], "--log"),
    ] {
        let mut command = Command::new(leash::sibling("preload-sidecar")?);
        command.arg("serve").args(["--state-dir"]).arg(sandbox.directory().join("state")).args(&arguments);
        let output = sandbox.run(&command, wait::LIMIT).await?;
        assert_eq!(output.exit, preload_tests::Exit::Code(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_admin_port_answers_probes_and_scrapes() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    client.start_load(load("a", "/a", 1)).await?;
    assert_eq!(http::get(sidecar.admin_address(), "/livez").await?.0, 200);
    let (status, text) = http::get(sidecar.admin_address(), "/metrics").await?;
    assert_eq!(status, 200);
    for line in [
        "preload_grpc_requests_total{method=\"StartLoad\",code=\"Ok\"} 1",
        "preload_load_wanted_bytes{load=\"a\"} 0",
        "preload_ready 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }

    let check = |extra: Option<&'static str>| {
        let mut command = Command::new(leash::sibling("preload-sidecar")?);
        command.arg("healthcheck").arg("--admin").arg(sidecar.admin_address()).args(extra);
        Ok::<_, anyhow::Error>(command)
    };
    let (ready, live) = (check(None)?, check(Some("--live"))?);
    for command in [&ready, &live] {
        assert_eq!(sandbox.run(command, wait::LIMIT).await?.success()?.trim(), "ok");
    }
    sidecar.terminate().await?;
    let output = sandbox.run(&ready, wait::LIMIT).await?;
    assert!(!output.exit.success() && output.stderr.contains("sidecar at"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn logs_are_json_lines_within_the_span_of_their_load() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let mut sidecar = Setup::alone(&sandbox).argument("--log-format").argument("json").start().await?;
    sidecar.start_load(load("a", "/some/path", 1)).await?;
    sidecar.in_state("a", State::Waiting).await?;
    assert!(sidecar.terminate().await?.success());
    let log = sidecar.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| log.clone())?;
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        assert!(line["message"].is_string() && line["target"].is_string(), "{line}");
    }
    let change = lines.iter().find(|line| line["message"] == "load changed state").context("no change")?;
    assert_eq!((&change["from"], &change["to"]), (&"Queued".into(), &"Waiting".into()), "{change}");
    let span = &change["span"];
    assert_eq!(
        (&span["name"], &span["id"], &span["path"]),
        (&"load".into(), &"a".into(), &"/some/path".into())
    );
    Ok(())
}

#[tokio::test]
async fn oversize_requests_are_refused_and_others_served() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).start().await?;
    let mut client = sidecar.client()?;
    let huge = StartLoadRequest { load_id: "x".repeat(1 << 20), spec: None };
    let status = client.start_load(huge).await.expect_err("1 MiB is too much");
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    client.start_load(load("a", "/a", 1)).await?;
    let found = client.get_load(GetLoadRequest { load_id: "a".into() }).await?.into_inner();
    assert_eq!(found.id, "a");
    Ok(())
}

#[tokio::test]
async fn preloadctl_tells_the_outcome_by_its_exit_code() -> Result<()> {
    let cluster = shared().await?;
    let data = cluster.data("preloadctl")?;
    data.files(3, MIB)?;
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    let address = sidecar.address().to_owned();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(leash::sibling("preloadctl")?);
        command.args(["--address", &address]).args(arguments);
        cluster.sandbox().run(&command, wait::LIMIT).await
    };
    let loaded = run(&["start", data.path(), "--id", "a", "--watch"]).await?;
    assert_eq!(loaded.exit, preload_tests::Exit::Code(0), "{loaded:?}");
    assert!(loaded.stdout.contains("LOADED"), "{loaded:?}");
    cluster.oracle().assert_loaded(data.path(), 1).await?;
    let failed = run(&["start", &format!("{}/nope", data.path()), "--id", "b", "--watch"]).await?;
    assert_eq!(failed.exit, preload_tests::Exit::Code(1), "{failed:?}");
    assert_eq!(run(&["start", "relative"]).await?.exit, preload_tests::Exit::Code(2));
    assert_eq!(run(&["get", "nobody"]).await?.exit, preload_tests::Exit::Code(4));
    let json: serde_json::Value = serde_json::from_str(&run(&["-o", "json", "get", "a"]).await?.success()?)?;
    assert_eq!((json["state"].as_str(), json["id"].as_str()), (Some("LOADED"), Some("a")));
    assert!(run(&["list"]).await?.success()?.contains("LOADED"));
    assert_eq!(sidecar.get_load("b").await?.state(), State::Failed);
    sidecar.terminate().await?;
    assert_eq!(run(&["get", "a"]).await?.exit, preload_tests::Exit::Code(3));
    Ok(())
}
