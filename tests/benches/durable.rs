//! A durable StartLoad over gRPC, against one append and fdatasync on the same disk.

use crate::document::Section;
use crate::{Bench, machine, plot};
use alluxio_preload_api::v1::preload_service_client::PreloadServiceClient;
use anyhow::{Context, Result, bail};
use preload_tests::stats::{Spread, milliseconds, number, percentile};
use preload_tests::{Sandbox, Setup, Sidecar, facts, load};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const CALLERS: usize = 64;
/// Bytes of the raw append: a page, about what one job takes in the journal.
const PAGE: usize = 4096;

type Client = PreloadServiceClient<Channel>;

/// What one round found.
#[derive(Debug, Default)]
struct Round {
    raw: Vec<Duration>,
    one: Vec<Duration>,
    many: Vec<Duration>,
    /// Calls a second.
    one_rate: f64,
    many_rate: f64,
    /// Of the sidecar for one call, in microseconds.
    one_cpu: f64,
    many_cpu: f64,
}

pub(crate) async fn run(bench: &Bench) -> Result<Section> {
    let sandbox = Sandbox::new()?;
    let file_system = facts::file_system(sandbox.directory());
    if file_system == "tmpfs" {
        bail!("{} is no disk: set TMPDIR to a directory on one", sandbox.directory().display());
    }
    let count = bench.size(15, 2);
    let mut rounds = Vec::new();
    for number in 1..=count {
        bench.say(&format!("durable: round {number} of {count}"));
        rounds.push(round(bench, &sandbox).await?);
    }
    Ok(report(&rounds))
}

/// A sidecar of its own: the number of loads that wait in it stays small.
async fn round(bench: &Bench, sandbox: &Sandbox) -> Result<Round> {
    let sidecar = Setup::alone(sandbox).quiet().argument("--max-queued=100000").start().await?;
    let mut raw_file = File::create(sandbox.folder("raw")?.join("file")).context("make a file")?;
    let mut client = sidecar.client()?;
    let (pid, mut one_cpu) = (sidecar.pid()?, Duration::ZERO);
    let calls = bench.size(50, 10);
    for number in 0..20 {
        start(&mut client, format!("warm-up-{number}")).await?;
    }
    let mut round = Round::default();
    for part in 0..4 {
        for _ in 0..calls {
            let begun = Instant::now();
            raw_file.write_all(&[7; PAGE]).and_then(|()| raw_file.sync_data()).context("append")?;
            round.raw.push(begun.elapsed());
        }
        let before = machine::cpu(pid)?;
        for number in 0..calls {
            round.one.push(start(&mut client, format!("one-{part}-{number}")).await?);
        }
        one_cpu += machine::cpu(pid)?.saturating_sub(before);
    }
    round.one_cpu = one_cpu.as_secs_f64() * 1e6 / round.one.len() as f64;
    round.one_rate = round.one.len() as f64 / round.one.iter().sum::<Duration>().as_secs_f64();
    many(&sidecar, bench.size(8, 2), &mut round).await?;
    Ok(round)
}

/// All callers at once, with a connection each.
async fn many(sidecar: &Sidecar<'_>, calls: usize, round: &mut Round) -> Result<()> {
    let mut clients = Vec::new();
    for caller in 0..CALLERS {
        let mut client = sidecar.client()?;
        start(&mut client, format!("warm-up-of-{caller}")).await?;
        clients.push(client);
    }
    let mut callers = JoinSet::new();
    let before = machine::cpu(sidecar.pid()?)?;
    let begun = Instant::now();
    for (caller, mut client) in clients.into_iter().enumerate() {
        callers.spawn(async move {
            let mut times = Vec::with_capacity(calls);
            for number in 0..calls {
                times.push(start(&mut client, format!("many-{caller}-{number}")).await?);
            }
            anyhow::Ok(times)
        });
    }
    while let Some(caller) = callers.join_next().await {
        round.many.extend(caller??);
    }
    let calls = round.many.len() as f64;
    round.many_rate = calls / begun.elapsed().as_secs_f64();
    round.many_cpu = (machine::cpu(sidecar.pid()?)?.saturating_sub(before)).as_secs_f64() * 1e6 / calls;
    Ok(())
}

async fn start(client: &mut Client, id: String) -> Result<Duration> {
    let request = load(&id, &format!("/datasets/{id}"), 2);
    let begun = Instant::now();
    client.start_load(request).await.context("StartLoad")?;
    Ok(begun.elapsed())
}

fn report(rounds: &[Round]) -> Section {
    let mut section = Section::new("durable", "StartLoad: durable before it answers");
    section.paragraph(&format!(
        "One caller and {CALLERS} callers with a connection each, against the least that durability costs: \
         an append of 4 KiB and an fdatasync on the same disk, in turns, in {} rounds with a fresh sidecar.",
        rounds.len()
    ));
    let column = |times: fn(&Round) -> &Vec<Duration>| {
        let each: Vec<_> = rounds.iter().map(|round| milliseconds(times(round))).collect();
        let mut all: Vec<f64> = each.concat();
        all.sort_by(f64::total_cmp);
        (Spread::of(each.iter().map(|times| percentile(times, 50.0))), all)
    };
    let ((raw, all_raw), (one, all_one), (many, all_many)) =
        (column(|round| &round.raw), column(|round| &round.one), column(|round| &round.many));
    let over = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure)).to_string();
    let row = |what: &str, p50: Spread, all: &[f64], rate: String, cpu: String| {
        [what.to_owned(), p50.to_string(), number(percentile(all, 99.0)), rate, cpu]
    };
    section.table(
        ["", "p50 of a round, ms", "p99 of all, ms", "a second", "CPU of the sidecar for one, us"],
        &[
            row("4 KiB append + fdatasync", raw, &all_raw, over(|r| 1.0 / mean(&r.raw)), String::new()),
            row("StartLoad, one caller", one, &all_one, over(|r| r.one_rate), over(|r| r.one_cpu)),
            row(
                &format!("StartLoad, {CALLERS} callers"),
                many,
                &all_many,
                over(|r| r.many_rate),
                over(|r| r.many_cpu),
            ),
        ],
    );
    let p50 = |times: &[Duration]| percentile(&milliseconds(times), 50.0);
    let slower = Spread::of(rounds.iter().map(|round| p50(&round.one) / p50(&round.raw)));
    let faster = Spread::of(rounds.iter().map(|round| round.many_rate / round.one_rate));
    section.bars(&[
        ("p50 of one caller within 4 x the raw append", format!("{slower} x"), slower.median <= 4.0),
        ("64 callers: at least 8 x the rate of one", format!("{faster} x"), faster.median >= 8.0),
    ]);
    let title = "Durable StartLoad: latency by percentile";
    let curves = [
        ("4 KiB append + fdatasync", all_raw.as_slice()),
        ("StartLoad, one caller", &all_one),
        ("StartLoad, 64 callers", &all_many),
    ];
    section.plot(title, plot::percentiles(title, &curves));
    section
}

fn mean(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() / times.len().max(1) as f64
}
