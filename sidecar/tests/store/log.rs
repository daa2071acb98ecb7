//! A log that is cut or has bit rot: exactly those of its commits are there that are whole, in their order.

use preload_sidecar::{
    job::{Job, State},
    store::ListQuery,
};

use crate::{
    ROOM,
    damage::{Image, LOG, random},
    open, put, queued,
};

/// Of SQLite's format of a log: its header, and that of a frame, which holds one page.
const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

/// Frames that lie within the first `length` bytes.
fn frames(length: usize) -> usize {
    length.saturating_sub(HEADER) / FRAME
}

/// How many commits the first `frames` frames end.
fn commits(log: &[u8], frames: usize) -> usize {
    let (frames, _) = log[HEADER..].as_chunks::<FRAME>().0.split_at(frames);
    // The size of the file after the commit; 0 in other frames.
    frames.iter().filter(|frame| frame[4..8] != [0; 4]).count()
}

/// The state after so many commits is there, in every view, and stays when the store goes on.
async fn check(image: &Image, log: &[u8], commits: usize, what: &str) {
    let copy = image.with(LOG, log);
    let mut jobs = image.history[commits].clone();
    let store = open(copy.path()).await;
    let list = store.list(ListQuery { limit: ROOM, ..ListQuery::default() }).await.unwrap();
    let listed: Vec<Job> = list.into_iter().rev().map(|(_, job)| job).collect();
    assert_eq!(listed, jobs, "{what}: not the state after {commits} commits");
    let only = |wanted: fn(&Job) -> bool| jobs.iter().filter(|job| wanted(job)).cloned().collect::<Vec<_>>();
    assert_eq!(store.live().await.unwrap(), only(|job| job.state.is_live()), "{what}");
    let mut loaded = store.loaded_elsewhere("cluster-1").await.unwrap();
    loaded.sort_by_key(|job| jobs.iter().position(|other| other.id == job.id));
    assert_eq!(loaded, only(|job| job.state == State::Loaded && job.cluster != "cluster-1"), "{what}");
    // What the log alone would have brought is not there by halves.
    for job in image.history.last().unwrap() {
        let expected = jobs.iter().find(|other| other.id == job.id);
        assert_eq!(store.get(&job.id).await.unwrap().as_ref(), expected, "{what}");
    }
    assert_eq!(store.scrub().await.unwrap(), [], "{what}");
    jobs.push(queued("new"));
    put(&store, jobs.last().unwrap()).await;
    store.close().await;
    let store = open(copy.path()).await;
    assert_eq!(
        store.live().await.unwrap(),
        jobs.iter().filter(|job| job.state.is_live()).cloned().collect::<Vec<_>>(),
        "{what}"
    );
    store.close().await;
}

#[tokio::test]
async fn a_log_cut_anywhere_leaves_whole_commits() {
    let image = Image::new(true).await;
    let log = image.read(LOG);
    let all = image.history.len() - 1;
    assert_eq!(commits(&log, frames(log.len())), all, "each call is a commit of its own");
    let borders = (0..=frames(log.len())).map(|frame| HEADER + frame * FRAME);
    let mut lengths: Vec<usize> = borders.flat_map(|border| [border - 1, border, border + 24]).collect();
    // Disks write sectors.
    lengths.extend((0..log.len()).step_by(512));
    lengths.push(HEADER / 2);
    lengths.retain(|length| *length <= log.len());
    lengths.sort_unstable();
    lengths.dedup();
    let mut before = 0;
    for length in lengths {
        let whole = commits(&log, frames(length));
        assert!(whole == before || whole == before + 1);
        before = whole;
        check(&image, &log[..length], whole, &format!("log cut at {length} of {}", log.len())).await;
    }
    assert_eq!(before, all);
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_leaves_what_came_before() {
    let image = Image::new(true).await;
    let log = image.read(LOG);
    let mut random = random(3);
    let anywhere: Vec<usize> = (0..40).map(|_| random(log.len())).collect();
    let headers = (0..HEADER).step_by(2).chain((0..24).map(|byte| HEADER + 3 * FRAME + byte));
    for at in headers.chain(anywhere) {
        let bit = random(8);
        let mut bad = log.clone();
        bad[at] ^= 1 << bit;
        let whole = commits(&log, frames(at));
        check(&image, &bad, whole, &format!("bit {bit} of byte {at} of the log")).await;
    }
}
