//! Figures for Prometheus, in the OpenMetrics text format.

use std::{collections::HashMap, sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::api::Phase;

/// Every figure of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<Reconcile, Counter>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    writes: Family<Write, Counter>,
    conflicts: Counter,
    preloads: Family<InPhase, Gauge<i64, AtomicI64>>,
    sessions: Family<OfScope, Gauge<i64, AtomicI64>>,
    leading: Gauge<i64, AtomicI64>,
    injections: Family<OfResult, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    scope: String,
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfScope {
    scope: String,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.1 ms (nothing to do) to 26 s (an API server in trouble).
        let durations = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0001, 4.0, 10))) as fn() -> Histogram,
        );
        Self {
            reconciles: Family::default(),
            durations,
            writes: Family::default(),
            conflicts: Counter::default(),
            preloads: Family::default(),
            sessions: Family::default(),
            leading: Gauge::default(),
            injections: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn reconciled(&self, kind: &str, ok: bool, took: Duration) {
        let kind = kind.to_owned();
        self.durations.get_or_create(&Kind { kind: kind.clone() }).observe(took.as_secs_f64());
        self.reconciles.get_or_create(&Reconcile { kind, result: if ok { "ok" } else { "error" } }).inc();
    }

    pub(crate) fn write(&self, kind: &str, result: &'static str) {
        self.writes.get_or_create(&Write { kind: kind.to_owned(), result }).inc();
    }

    pub(crate) fn conflict(&self) {
        self.conflicts.inc();
    }

    pub(crate) fn observe(&self, scope: &str, phases: &HashMap<Phase, u32>, sessions: usize) {
        for phase in [Phase::Pending, Phase::Loading, Phase::Loaded, Phase::Failed, Phase::Cancelled] {
            let label = InPhase { scope: scope.to_owned(), phase: format!("{phase:?}") };
            self.preloads.get_or_create(&label).set(phases.get(&phase).copied().unwrap_or(0).into());
        }
        let sessions = i64::try_from(sessions).unwrap_or(i64::MAX);
        self.sessions.get_or_create(&OfScope { scope: scope.to_owned() }).set(sessions);
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(leading.into());
    }

    /// What became of a pod that the webhook was asked about: injected, unchanged or failed.
    pub(crate) fn injection(&self, result: &'static str) {
        self.injections.get_or_create(&OfResult { result }).inc();
    }

    /// The page of `/metrics`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut registry = Registry::with_prefix("preload_controller");
        registry.register("reconciles", "Reconciliations by kind and result", self.reconciles.clone());
        let help = "Time of one reconciliation";
        registry.register_with_unit("reconcile_duration", help, Unit::Seconds, self.durations.clone());
        registry.register("writes", "Writes to the API server by kind and result", self.writes.clone());
        let help = "Writes that met an object which had changed, and were tried again";
        registry.register("write_conflicts", help, self.conflicts.clone());
        registry.register("preloads", "Preloads by phase", self.preloads.clone());
        registry.register("sessions", "Loads that sidecars are being asked about", self.sessions.clone());
        registry.register("leading", "1 while this replica holds the lease", self.leading.clone());
        registry.register("injections", "Pods that the webhook was asked about", self.injections.clone());
        let mut page = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut page, &registry);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_figure() {
        let metrics = Metrics::default();
        metrics.reconciled("Preload", true, Duration::from_millis(1));
        metrics.write("Preload", "applied");
        metrics.conflict();
        metrics.leading(true);
        metrics.injection("injected");
        metrics.observe("ns", &HashMap::from([(Phase::Loaded, 3)]), 3);
        let page = metrics.render();
        for line in [
            r#"preload_controller_reconciles_total{kind="Preload",result="ok"} 1"#,
            r#"preload_controller_writes_total{kind="Preload",result="applied"} 1"#,
            "preload_controller_write_conflicts_total 1",
            r#"preload_controller_preloads{scope="ns",phase="Loaded"} 3"#,
            r#"preload_controller_preloads{scope="ns",phase="Failed"} 0"#,
            r#"preload_controller_sessions{scope="ns"} 3"#,
            "preload_controller_leading 1",
            r#"preload_controller_injections_total{result="injected"} 1"#,
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        assert!(page.contains("preload_controller_reconcile_duration_seconds_bucket"), "{page}");
    }
}
