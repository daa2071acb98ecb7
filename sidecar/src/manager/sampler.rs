//! Progress while distributedLoad is silent.
//!
//! Two sources: the workers' used bytes, which cost a millisecond and tell how much has come in since the
//! last count; and now and then the master's block map, which is exact and costs as much as a listing.
//!
//! Invariants: one call is in flight at most; calls take 2% of the time at most. Each source is asked again
//! only when the next call, should it take as long as those before, fits into its part of the time; one that
//! takes much longer is given up.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use alluxio_client::{Client, Error, LoadMetadata, Worker};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Manager, live::Live, runner::live_ids};
use crate::{
    job::{Count, State},
    survey::Survey,
};

/// One part in so many of the time goes into looks at the workers, which carry the progress ...
const LOOKS: u32 = 100;
/// ... and into counts of the block map.
const COUNTS: u32 = 200;
/// Where a call is given up. Less than one part in fifty, because a busy machine tells late that time is up.
const MOST: u32 = 60;
/// Workers report what they hold once a second.
const SHORTEST_REST: Duration = Duration::from_millis(500);
/// A count of the block map is never more often than this.
const SHORTEST_COUNT_REST: Duration = Duration::from_secs(2);
/// What the first count is taken to cost: Alluxio lists 1,000 files in 40 to 180 ms.
const COUNT_OF_A_FILE: Duration = Duration::from_micros(100);
/// The rate is taken over this span.
const RATE_OVER: Duration = Duration::from_secs(10);

/// The last exact count, and what the workers held then.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    exact: Count,
    used: u64,
}

impl Baseline {
    pub(super) fn new(survey: &Survey, workers: &[Worker]) -> Self {
        Self { exact: survey.count(true), used: used(workers) }
    }

    /// What is cached now, when the workers hold `used` bytes and `share` of what came in since is ours.
    fn reckon(&self, used: u64, share: f64) -> Count {
        let missing = self.exact.bytes_total - self.exact.bytes_cached;
        let grown = (used.saturating_sub(self.used) as f64 * share.clamp(0.0, 1.0)) as u64;
        let grown = grown.min(missing);
        let files_missing = self.exact.files_total - self.exact.files_cached;
        // Files are taken to be of one size; a file counts once all of it is there.
        let files = if missing == 0 {
            0
        } else {
            (u128::from(files_missing) * u128::from(grown) / u128::from(missing)) as u64
        };
        Count {
            bytes_cached: self.exact.bytes_cached + grown,
            files_cached: self.exact.files_cached + files,
            cached_exact: grown == 0,
            ..self.exact
        }
    }
}

fn used(workers: &[Worker]) -> u64 {
    workers.iter().map(|w| w.used_bytes).fold(0, u64::saturating_add)
}

/// Publishes progress of `live` until dropped. `begun`: when the loading began, whose time is shared out.
pub(super) async fn run(
    client: &Client,
    manager: &Manager,
    live: &Live,
    mut baseline: Baseline,
    begun: Instant,
) -> Infallible {
    let mut rate = Rate::default();
    let mut looks = Source::new(begun, LOOKS, SHORTEST_REST, Duration::ZERO);
    let files = u32::try_from(baseline.exact.files_total).unwrap_or(u32::MAX);
    let mut counts = Source::new(begun, COUNTS, SHORTEST_COUNT_REST, COUNT_OF_A_FILE.saturating_mul(files));
    let mut told_of_failure = false;
    loop {
        sleep_until(looks.due.min(counts.due)).await;
        let begun = Instant::now();
        let counting = begun >= counts.due;
        let timed = manager.0.metrics.progress_call();
        let asking = async {
            if counting { count(client, live).await } else { look(client, manager, live, &baseline).await }
        };
        let allowance = ((begun - looks.begun) / MOST).saturating_sub(looks.spent + counts.spent);
        let seen = timeout(allowance, asking).await;
        drop(timed);
        let source = if counting { &mut counts } else { &mut looks };
        source.spend(begun.elapsed(), Instant::now());
        match seen {
            Ok(Ok((mut now, fresh))) => {
                (now.bytes_per_second, now.eta) = rate.add(begun, &now);
                live.advance(now).await;
                if let Some(fresh) = fresh {
                    baseline = fresh;
                }
            }
            Ok(Err(error)) if !told_of_failure => {
                told_of_failure = true;
                tracing::warn!(%error, "progress cannot be seen for now");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Reckons from the workers' used bytes.
async fn look(
    client: &Client,
    manager: &Manager,
    live: &Live,
    baseline: &Baseline,
) -> Result<(Count, Option<Baseline>), Error> {
    let used = used(&client.workers().await?);
    let missing = |c: &Count| (c.bytes_total - c.bytes_cached) as f64;
    // What comes in belongs to the running loads in proportion to what they miss.
    let loads = manager.live();
    let all: f64 =
        loads.iter().filter(|j| j.state == State::Loading).map(|j| missing(j.progress.count())).sum();
    let ours = missing(live.job().progress.count());
    Ok((baseline.reckon(used, if all > 0.0 { ours / all } else { 1.0 }), None))
}

/// Counts in the block map.
async fn count(client: &Client, live: &Live) -> Result<(Count, Option<Baseline>), Error> {
    let job = live.job();
    let workers = client.workers().await?;
    let mut survey = Survey::new(job.spec.replicas.get(), live_ids(&workers));
    let mut listing = client.list(live.path.as_str(), LoadMetadata::Never).await?;
    while let Some(file) = listing.next().await? {
        survey.add(&file);
    }
    let baseline = Baseline::new(&survey, &workers);
    Ok((baseline.exact, Some(baseline)))
}

/// Something to ask, and when it may be asked next.
#[derive(Debug)]
struct Source {
    /// Its calls take one part in so many of the time since `begun`.
    part: u32,
    shortest_rest: Duration,
    begun: Instant,
    calls: u32,
    spent: Duration,
    due: Instant,
}

impl Source {
    /// `first`: how long the first call is going to take.
    fn new(begun: Instant, part: u32, shortest_rest: Duration, first: Duration) -> Self {
        let due = begun + shortest_rest.max(first.saturating_mul(part));
        Self { part, shortest_rest, begun, calls: 0, spent: Duration::ZERO, due }
    }

    /// A call ended at `now` that took `took`.
    fn spend(&mut self, took: Duration, now: Instant) {
        self.calls += 1;
        self.spent += took;
        let next = self.spent / self.calls;
        self.due = (self.begun + (self.spent + next) * self.part).max(now + self.shortest_rest);
    }
}

/// Bytes a second over the last [`RATE_OVER`].
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    pub(super) fn add(&mut self, now: Instant, count: &Count) -> (u64, Option<Duration>) {
        let highest = self.0.back().map_or(0, |(_, bytes)| *bytes).max(count.bytes_cached);
        // The silence before the first byte says nothing about those to come.
        if self.0.front().is_some_and(|(_, bytes)| *bytes == highest) {
            self.0.clear();
        }
        self.0.push_back((now, highest));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.0.pop_front();
        }
        let Some((first_at, first)) = self.0.front().copied() else { return (0, None) };
        let seconds = (now - first_at).as_secs_f64();
        if seconds <= 0.0 || highest == first {
            return (0, None);
        }
        let rate = (highest - first) as f64 / seconds;
        let left = count.bytes_total.saturating_sub(highest) as f64;
        (rate as u64, Duration::try_from_secs_f64(left / rate).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let exact = Count {
            files_total: 10,
            files_cached: 2,
            bytes_total: 1000,
            bytes_cached: 200,
            totals_exact: true,
            cached_exact: true,
            ..Count::default()
        };
        Baseline { exact, used: 5000 }
    }

    #[test]
    fn growth_is_ours_up_to_what_is_missing() {
        let half = baseline().reckon(5400, 1.0);
        assert_eq!((half.bytes_cached, half.files_cached, half.cached_exact), (600, 6, false));
        assert_eq!(baseline().reckon(9999, 1.0).bytes_cached, 1000);
        assert_eq!(baseline().reckon(5400, 0.5).bytes_cached, 400);
    }

    #[test]
    fn eviction_is_no_growth() {
        let count = baseline().reckon(0, 1.0);
        assert_eq!((count.bytes_cached, count.cached_exact), (200, true));
    }

    #[test]
    fn a_source_takes_its_part_of_the_time() {
        let mut source = Source::new(Instant::now(), 50, Duration::from_secs(1), Duration::from_millis(100));
        assert_eq!(source.due, source.begun + Duration::from_secs(5));
        for millis in [40, 90, 60, 10, 10, 300, 20] {
            let took = Duration::from_millis(millis);
            let ended = source.due + took;
            source.spend(took, ended);
            assert!(source.due >= ended + Duration::from_secs(1));
            assert!(source.spent * 50 < source.due - source.begun, "{source:?}");
        }
    }

    #[test]
    fn the_rate_is_over_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        let count = |bytes_cached| Count { bytes_total: 1000, bytes_cached, ..Count::default() };
        assert_eq!(rate.add(start, &count(0)), (0, None));
        let (per_second, eta) = rate.add(start + Duration::from_secs(2), &count(200));
        assert_eq!((per_second, eta), (100, Some(Duration::from_secs(8))));

        let mut late = Rate::default();
        for second in 0..9 {
            assert_eq!(late.add(start + Duration::from_secs(second), &count(0)), (0, None));
        }
        assert_eq!(late.add(start + Duration::from_secs(9), &count(100)).0, 100);
    }
}
