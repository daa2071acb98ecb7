//! Figures for Prometheus, in the OpenMetrics text format. Names follow its conventions: base units, `_total`.

use std::{
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::job::{Job, State};

/// Every figure of the process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    transitions: Family<Transition, Counter>,
    requests: Family<Request, Counter>,
    durations: Family<Method, Histogram, fn() -> Histogram>,
    watchers: Gauge<i64, AtomicI64>,
    commands: Family<Command, Counter>,
    leftovers: Counter,
    verifications: Family<Verification, Counter>,
    progress_calls: Counter<f64, AtomicU64>,
    credentials_usable: Gauge<i64, AtomicI64>,
    handshakes_failed: Counter,
    panics: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transition {
    to: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Command {
    exit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verification {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveState {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadLabel {
    load: String,
}

/// A watcher that is counted until dropped.
#[derive(Debug)]
pub struct Watcher(Gauge<i64, AtomicI64>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A call for progress, timed until dropped, so that one that is cut short counts too.
#[derive(Debug)]
pub(crate) struct ProgressCall {
    begun: Instant,
    total: Counter<f64, AtomicU64>,
}

impl Drop for ProgressCall {
    fn drop(&mut self) {
        self.total.inc_by(self.begun.elapsed().as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        // 0.1 ms (a read from memory) to 6.5 s (a store on a disk in trouble).
        let durations = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0001, 4.0, 9))) as fn() -> Histogram,
        );
        Self {
            transitions: Family::default(),
            requests: Family::default(),
            durations,
            watchers: Gauge::default(),
            commands: Family::default(),
            leftovers: Counter::default(),
            verifications: Family::default(),
            progress_calls: Counter::default(),
            credentials_usable: Gauge::default(),
            handshakes_failed: Counter::default(),
            panics: Counter::default(),
        }
    }

    pub(crate) fn transition(&self, job: &Job) {
        let reason = job.reason.map_or_else(String::new, |reason| name(&reason));
        self.transitions.get_or_create(&Transition { to: name(&job.state), reason }).inc();
    }

    /// `code`: of gRPC, by name.
    pub(crate) fn request(&self, method: &str, code: tonic::Code, took: Duration) {
        let method = method.to_owned();
        self.durations.get_or_create(&Method { method: method.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Request { method, code: format!("{code:?}") }).inc();
    }

    pub(crate) fn command(&self, exit: impl Into<String>) {
        self.commands.get_or_create(&Command { exit: exit.into() }).inc();
    }

    pub(crate) fn leftovers(&self, jobs: usize) {
        self.leftovers.inc_by(jobs as u64);
    }

    /// `outcome`: loaded, evicted, path_not_found, cluster_changed or not_judged.
    pub(crate) fn verification(&self, outcome: &'static str) {
        self.verifications.get_or_create(&Verification { outcome }).inc();
    }

    pub(crate) fn credentials_usable(&self, usable: bool) {
        self.credentials_usable.set(i64::from(usable));
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    #[must_use]
    pub(crate) fn progress_call(&self) -> ProgressCall {
        ProgressCall { begun: Instant::now(), total: self.progress_calls.clone() }
    }

    #[must_use]
    pub(crate) fn watcher(&self) -> Watcher {
        self.watchers.inc();
        Watcher(self.watchers.clone())
    }

    /// The text of a scrape. `live`: the loads that are not finished.
    #[must_use]
    pub fn render(&self, live: &[Arc<Job>], ready: bool) -> String {
        let mut registry = Registry::with_prefix("preload");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Version of the sidecar", Info::new(version));
        registry.register("ready", "1 while the store is open", constant(i64::from(ready)));
        registry.register("load_transitions", "Changes of state", self.transitions.clone());
        registry.register("grpc_requests", "Calls answered; streams when they end", self.requests.clone());
        registry.register_with_unit(
            "grpc_request_duration",
            "Time to the answer; of streams, to its beginning",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("watchers", "Open WatchLoad streams", self.watchers.clone());
        registry.register("commands", "Runs of distributedLoad by exit", self.commands.clone());
        registry.register(
            "leftover_jobs_cancelled",
            "Jobs cancelled in the job service",
            self.leftovers.clone(),
        );
        registry.register("verifications", "Checks of LOADED loads by outcome", self.verifications.clone());
        registry.register_with_unit(
            "progress_call",
            "Time in which Alluxio was asked how far running loads are",
            Unit::Seconds,
            self.progress_calls.clone(),
        );
        registry.register(
            "credentials_usable",
            "0 while what is on disk is missing or broken; older ones may be in use",
            self.credentials_usable.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "Connections refused before a call",
            self.handshakes_failed.clone(),
        );
        registry.register("panics", "Bugs that were survived; see the log", self.panics.clone());
        Self::loads(&mut registry, live);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        process(&mut text);
        text
    }

    fn loads(registry: &mut Registry, live: &[Arc<Job>]) {
        let states: Family<LiveState, Gauge> = Family::default();
        let [total, cached, rate]: [Family<LoadLabel, Gauge>; 3] = Default::default();
        for state in State::ALL.into_iter().filter(|state| state.is_live()) {
            let loads = live.iter().filter(|job| job.state == state).count();
            states.get_or_create(&LiveState { state: name(&state) }).set(loads as i64);
        }
        for job in live {
            let label = LoadLabel { load: job.id.to_string() };
            let count = job.progress.count();
            let set = |family: &Family<LoadLabel, Gauge>, n| {
                family.get_or_create(&label).set(i64::try_from(n).unwrap_or(i64::MAX));
            };
            set(&total, count.bytes_total);
            set(&cached, count.bytes_cached);
            set(&rate, count.bytes_per_second);
        }
        registry.register("loads", "Unfinished loads by state", states);
        let unit = || Unit::Bytes;
        registry.register_with_unit("load_wanted", "All wished copies of an unfinished load", unit(), total);
        registry.register_with_unit("load_cached", "Of those, in the cache", unit(), cached);
        registry.register("load_bytes_per_second", "Rate of an unfinished load", rate);
    }
}

fn constant(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

/// The snake_case name that the store and the log use too.
fn name<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The standard process metrics, before the closing `# EOF`.
fn process(text: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let files = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let eof = text.rfind("# EOF").unwrap_or(text.len());
    text.truncate(eof);
    if let Some(kilobytes) = resident {
        let _ = writeln!(text, "# TYPE process_resident_memory_bytes gauge");
        let _ = writeln!(text, "process_resident_memory_bytes {}", kilobytes * 1024);
    }
    if let Some(files) = files {
        let _ = writeln!(text, "# TYPE process_open_fds gauge");
        let _ = writeln!(text, "process_open_fds {files}");
    }
    text.push_str("# EOF\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_what_dashboards_ask_for() {
        let metrics = Metrics::new();
        metrics.request("StartLoad", tonic::Code::Ok, Duration::from_millis(1));
        let watcher = metrics.watcher();
        let text = metrics.render(&[], true);
        for line in [
            "preload_grpc_requests_total{method=\"StartLoad\",code=\"Ok\"} 1",
            "preload_loads{state=\"loading\"} 0",
            "preload_watchers 1",
            "preload_ready 1",
            "preload_progress_call_seconds_total 0",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop(watcher);
        assert!(metrics.render(&[], true).contains("preload_watchers 0"));
    }
}
