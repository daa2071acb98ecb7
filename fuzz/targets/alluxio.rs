//! An Alluxio that is broken, or lies: whatever bytes it answers, the client says what it makes of them, and ends.
//!
//! A case is a list of answers, each with the call that is made: one byte for the call, one for how the answer ends,
//! two for the length of the body, and the body, frames of gRPC and all. A call that asks more than once takes the
//! answers of those behind it.
#![no_main]

mod server;

use std::{collections::HashSet, time::Duration};

use alluxio_client::{
    BlockFailure, Client, CommandJob, Config, Error, File, LoadMetadata, UfsBlock, Worker, WorkerAddress,
};
use libfuzzer_sys::fuzz_target;
use preload_sidecar::{
    gates::{self, Need},
    job::{AlluxioPath, Spec},
    survey::Survey,
};

use server::{ADDRESS, ANSWERS, Answer, RUNTIME};

/// For a call. The server answers at once, so that no call may need it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Of one case: more teach nothing.
const CALLS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let cases = split(bytes);
    let calls: Vec<u8> = cases.iter().map(|(call, _)| *call).collect();
    *ANSWERS.lock().expect("nobody panicked") = cases.into_iter().map(|(_, answer)| answer).collect();
    let server = vec![ADDRESS.to_string()];
    RUNTIME.block_on(async {
        let client = Client::new(Config {
            masters: server.clone(),
            job_masters: server,
            user: "fuzz".to_owned(),
            connect_timeout: DEADLINE,
            call_timeout: DEADLINE,
            listing_idle_timeout: DEADLINE,
        });
        for call in calls {
            server::forget();
            ask(&client, call).await;
        }
        client.settled().await;
    });
});

fn split(mut bytes: &[u8]) -> Vec<(u8, Answer)> {
    let mut cases = Vec::new();
    while let [call, end, low, high, rest @ ..] = bytes
        && cases.len() < CALLS
    {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        cases.push((*call, Answer::new(*end, body)));
        bytes = rest;
    }
    cases
}

/// Any outcome will do, as long as there is one, and it is what was answered.
async fn ask(client: &Client, call: u8) {
    // Never one from an answer: only this server is spoken to.
    let (host, rpc_port) = (ADDRESS.ip().to_string(), ADDRESS.port());
    let worker = WorkerAddress { host, rpc_port, container_host: String::new() };
    let block = UfsBlock { id: 1, length: 10, ufs_path: "/u/f".into(), offset: 0, mount_id: 1 };
    match call % 14 {
        0 => count(client, LoadMetadata::Never).await,
        1 => count(client, LoadMetadata::Always).await,
        2 => {
            if let Some(file) = told(client.status("/f").await, Some("/f")) {
                judge(&mut Survey::new(2, HashSet::from([1, 2])), &file);
            }
        }
        3 => room(&told(client.workers().await, None).unwrap_or_default()),
        4 => drop(told(client.master_info().await, None)),
        5 => drop(told(client.jobs(&[]).await, None)),
        6 => drop(told(client.job_ids(&[]).await, None)),
        7 => {
            let jobs: Option<Vec<CommandJob>> = told(client.command_jobs(1).await, Some("command 1"));
            drop(jobs);
        }
        8 => {
            // Threads and tasks that are less than none would count as many.
            for worker in told(client.job_workers().await, None).unwrap_or_default() {
                let most = i32::MAX.unsigned_abs();
                let counts = [worker.task_pool_size, worker.active_tasks, worker.unfinished_tasks];
                assert!(counts.iter().all(|count| *count <= most), "{worker:?}");
            }
        }
        9 => drop(told(client.cache_block(&worker, &block, ("127.0.0.1", 1), DEADLINE).await, None)),
        10 => {
            let failed: Option<Vec<BlockFailure>> =
                told(client.load_blocks(&worker, &[block], DEADLINE).await, None);
            assert!(failed.iter().flatten().all(|block| block.code != tonic::Code::Ok), "{failed:?}");
        }
        11 => {
            // How the stream ends does not matter to it, only that a byte came.
            match client.has_last_byte(&worker, (1, 10), DEADLINE).await {
                Ok(has) => assert!(!has || server::longest() > EMPTY, "a byte that nobody sent"),
                Err(error) => complains(&error, Some("block 1")),
            }
        }
        12 => drop(told(client.remove_block(&worker, 1, DEADLINE).await, Some("block 1"))),
        _ => assert_ne!(told(client.cluster_id().await, None), Some(String::new())),
    }
}

/// Bytes of a frame without a message.
const EMPTY: usize = 5;

/// What was answered. What ended with an error is none; `subject`: what may be said not to be there.
fn told<T>(result: Result<T, Error>, subject: Option<&str>) -> Option<T> {
    match result {
        Ok(answer) => {
            assert!(
                server::last_status().is_none_or(|status| status == 0),
                "an error was taken for an answer"
            );
            Some(answer)
        }
        Err(error) => {
            complains(&error, subject);
            None
        }
    }
}

fn complains(error: &Error, subject: Option<&str>) {
    assert!(!error.to_string().is_empty());
    match error {
        Error::NotFound { path } => assert_eq!(Some(path.as_str()), subject),
        Error::Server { code, .. } => assert_ne!(*code, tonic::Code::Ok),
        Error::DeadlineExceeded { server, .. } => panic!("{server} had answered"),
        _ => {}
    }
}

async fn count(client: &Client, metadata: LoadMetadata) {
    let mut listing = match client.list("/", metadata).await {
        Ok(listing) => listing,
        Err(error) => return complains(&error, Some("/")),
    };
    let mut survey = Survey::new(2, HashSet::from([1, 2]));
    loop {
        match listing.next().await {
            Ok(Some(file)) => judge(&mut survey, &file),
            Ok(None) => {
                break assert_eq!(server::last_status(), Some(0), "a listing that was cut looks whole");
            }
            Err(error) => {
                complains(&error, Some("/"));
                break assert!(listing.next().await.is_err(), "a listing that broke goes on");
            }
        }
    }
    assert!(survey.files_cached <= survey.files_total);
    assert!(survey.bytes_cached <= survey.bytes_total);
    assert_eq!(survey.is_complete(), survey.files_missing() == 0);
    let _ = survey.count(true);
}

/// A file whose blocks do not cover it, or lie on other workers, is never whole.
fn judge(survey: &mut Survey, file: &File) {
    assert!(!file.folder || file.length == 0);
    for block in &file.blocks {
        assert!(block.workers.is_sorted_by(|one, other| one < other), "a worker counts once");
    }
    let tally = survey.add(file);
    let known: u128 = file.blocks.iter().map(|block| u128::from(block.length)).sum();
    let short = |block: &alluxio_client::Block| {
        block.length > 0 && block.workers.iter().filter(|id| matches!(id, 1 | 2)).count() < 2
    };
    let lacks = known < u128::from(file.length) || file.blocks.iter().any(short);
    if !file.folder && (lacks || !file.completed) {
        let tally = tally.expect("what lacks blocks is not loaded");
        drop(tally.failure(file, 2, None));
    }
}

/// Workers that promise more than can be are believed no more than that: a path has room where the sum says so.
fn room(workers: &[Worker]) {
    let spec = |evict| Spec {
        allow_evict: evict,
        ..Spec::new(AlluxioPath::try_from("/".to_owned()).expect("a path"))
    };
    let live = || workers.iter().filter(|worker| gates::is_live(worker));
    assert_eq!(gates::workers(&spec(false), workers).is_none(), live().count() > 0);
    let need = Need { bytes_missing: 1 << 40, bytes_short: 1 << 40, bytes_total: 1 << 40 };
    for evict in [false, true] {
        let free = |worker: &Worker| match evict {
            true => u128::from(worker.capacity_bytes),
            false => u128::from(worker.capacity_bytes).saturating_sub(u128::from(worker.used_bytes)),
        };
        let enough = live().map(free).sum::<u128>() >= 1 << 40;
        assert_eq!(gates::room(&spec(evict), need, workers, 0).is_none(), enough, "{workers:?}");
    }
    for worker in workers {
        assert!(worker.address.to_string().ends_with(&format!(":{}", worker.address.rpc_port)));
    }
}
