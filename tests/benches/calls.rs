//! The unary calls, as ghz sees them: a client that shares no code with us.

use crate::Bench;
use crate::document::Section;
use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use anyhow::{Context, Result, ensure};
use preload_tests::stats::number;
use preload_tests::{Sandbox, Setup, Sidecar, load, prerequisites};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// For one run of ghz.
const LIMIT: Duration = Duration::from_secs(300);
/// What ListLoads has to tell: a page.
const LOADS: usize = 50;
/// Loads that are started, cancelled and deleted by one measurement each.
const NEW: usize = 1_000;
const CALLERS: [usize; 2] = [1, 50];

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let sandbox = Sandbox::new()?;
    let queued = (LOADS + 2 * NEW).to_string();
    let sidecar = Setup::alone(&sandbox).quiet().argument("--max-queued").argument(queued).start().await?;
    for number in 0..LOADS {
        sidecar.start_load(load(&format!("load-{number}"), &format!("/data/{number}"), 1)).await?;
    }
    let mut rows = Vec::new();
    for (call, request) in [
        ("GetLoad", json!({ "load_id": "load-0" })),
        ("ListLoads", json!({ "page_size": LOADS })),
        ("ListFailures", json!({ "load_id": "load-0" })),
        ("StartLoad, again", json!({ "load_id": "load-0", "spec": { "path": "/data/0" } })),
    ] {
        for (callers, calls) in CALLERS.into_iter().zip([bench.size(5_000, 200), bench.size(50_000, 500)]) {
            rows.push(measure(bench, &sandbox, &sidecar, call, &request, callers, calls).await?);
        }
    }
    rows.extend(courses(bench, &sandbox, &sidecar).await?);
    sidecar.assert_no_errors()?;
    rows.extend(checks(bench, &sandbox).await?);
    let mut section = Section::new("calls", "Unary calls");
    section.paragraph(&format!(
        "ghz against one sidecar that knows {LOADS} waiting loads, in plain text over loopback, callers on up to ten \
         connections. ListLoads tells all {LOADS}. StartLoad again repeats a load that exists, as a controller does after a \
         restart: nothing is written. StartLoad, CancelLoad and DeleteLoad name another load each time and return when \
         that is durable. VerifyLoad is asked of a sidecar beside a real Alluxio, about one cached file. \
         What ghz itself takes is in all of it: StartLoad with a leaner client is [above](#startload-durable-before-it-answers)."
    ));
    section.table(["call", "callers", "calls", "calls a second", "median ms", "p99 ms", "most ms"], &rows);
    Ok(section)
}

/// Calls that each change a load of their own.
async fn courses(bench: &Bench, sandbox: &Sandbox, sidecar: &Sidecar<'_>) -> Result<Vec<[String; 7]>> {
    let calls = bench.size(NEW, 50);
    let mut rows = Vec::new();
    for callers in CALLERS {
        // ghz counts its calls from 0.
        let id = format!("by-{callers}-{{{{.RequestNumber}}}}");
        let request = json!({ "load_id": id, "spec": { "path": "/new" } });
        rows.push(measure(bench, sandbox, sidecar, "StartLoad", &request, callers, calls).await?);
        let request = json!({ "load_id": id });
        rows.push(measure(bench, sandbox, sidecar, "CancelLoad", &request, callers, calls).await?);
        for number in 0..calls {
            sidecar.finished(&format!("by-{callers}-{number}")).await?;
        }
        rows.push(measure(bench, sandbox, sidecar, "DeleteLoad", &request, callers, calls).await?);
    }
    rows.sort();
    Ok(rows)
}

/// VerifyLoad of what is loaded.
async fn checks(bench: &Bench, sandbox: &Sandbox) -> Result<Vec<[String; 7]>> {
    let cluster = bench.cluster().await?;
    let data = cluster.data("calls")?;
    data.files(1, 16_000)?;
    let sidecar = Setup::new(cluster).quiet().start().await?;
    let mut request = load("one", data.path(), 1);
    if let Some(spec) = &mut request.spec {
        spec.set_engine(Engine::Native);
    }
    sidecar.start_load(request).await?;
    let load = sidecar.finished("one").await?;
    ensure!(load.state() == State::Loaded, "{:?}: {}", load.state(), load.message);
    let request = json!({ "load_id": "one" });
    let mut rows = Vec::new();
    for (callers, calls) in CALLERS.into_iter().zip([bench.size(500, 20), bench.size(2_000, 100)]) {
        rows.push(measure(bench, sandbox, &sidecar, "VerifyLoad", &request, callers, calls).await?);
    }
    sidecar.assert_no_errors()?;
    Ok(rows)
}

/// `name`: of the call, and what is special about it.
async fn measure(
    bench: &Bench,
    sandbox: &Sandbox,
    sidecar: &Sidecar<'_>,
    name: &str,
    request: &Value,
    callers: usize,
    calls: usize,
) -> Result<[String; 7]> {
    let call = name.split(',').next().unwrap_or(name);
    let mut command = Command::new(prerequisites::ghz()?);
    command
        .args(["--insecure", "--format", "json", "--call", &format!("preload.v1.PreloadService/{call}")])
        .args(["--data", &request.to_string(), "--total", &calls.to_string()])
        .args(["--concurrency", &callers.to_string(), "--connections", &callers.min(10).to_string()])
        .arg(sidecar.address())
        .current_dir(sandbox.directory());
    let said = sandbox.run(&command, LIMIT).await?.success()?;
    let report: Value = serde_json::from_str(&said).context("ghz does not speak JSON")?;
    let answered = &report["statusCodeDistribution"];
    ensure!(answered == &json!({ "OK": calls }), "ghz: {answered}");
    let nanoseconds = |value: &Value| value.as_f64().map(|value| number(value / 1e6)).context("ghz: no time");
    let percentile = |percent: u64| {
        let all = report["latencyDistribution"].as_array().context("ghz: no latencies")?;
        let found = all.iter().find(|entry| entry["percentage"] == percent).context("ghz: no percentile")?;
        nanoseconds(&found["latency"])
    };
    let rate = report["rps"].as_f64().context("ghz: no rate")?;
    let row = [
        name.to_owned(),
        callers.to_string(),
        calls.to_string(),
        format!("{rate:.0}"),
        percentile(50)?,
        percentile(99)?,
        nanoseconds(&report["slowest"])?,
    ];
    bench.say(&format!("calls: {}", row.join(", ")));
    Ok(row)
}
