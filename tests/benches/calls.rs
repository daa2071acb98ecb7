//! The unary calls, as ghz sees them: a client that shares no code with us.

use crate::Bench;
use crate::document::Section;
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

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let sandbox = Sandbox::new()?;
    let sidecar = Setup::alone(&sandbox).quiet().start().await?;
    for number in 0..LOADS {
        sidecar.start_load(load(&format!("load-{number}"), &format!("/data/{number}"), 1)).await?;
    }
    let mut rows = Vec::new();
    for (call, request) in [
        ("GetLoad", json!({ "load_id": "load-0" })),
        ("ListLoads", json!({ "page_size": LOADS })),
        ("StartLoad", json!({ "load_id": "load-0", "spec": { "path": "/data/0" } })),
    ] {
        for (callers, calls) in [(1, bench.size(5_000, 200)), (50, bench.size(50_000, 500))] {
            let row = measure(&sandbox, &sidecar, call, &request, callers, calls).await?;
            bench.say(&format!("calls: {}", row.join(", ")));
            rows.push(row);
        }
    }
    sidecar.assert_no_errors()?;
    let mut section = Section::new("calls", "Unary calls");
    section.paragraph(&format!(
        "ghz against one sidecar that knows {LOADS} waiting loads, in plain text over loopback, callers on up to ten \
         connections. StartLoad repeats a load that exists, as a controller does after a restart: it is answered, and \
         nothing is written (for new loads see the first section). ListLoads tells all {LOADS}."
    ));
    section.table(["call", "callers", "calls", "calls a second", "median ms", "p99 ms", "most ms"], &rows);
    Ok(section)
}

async fn measure(
    sandbox: &Sandbox,
    sidecar: &Sidecar<'_>,
    call: &str,
    request: &Value,
    callers: usize,
    calls: usize,
) -> Result<[String; 7]> {
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
    Ok([
        call.to_owned(),
        callers.to_string(),
        calls.to_string(),
        format!("{rate:.0}"),
        percentile(50)?,
        percentile(99)?,
        nanoseconds(&report["slowest"])?,
    ])
}
