//! Whatever panics is in the log, with its place, and is counted. Alone in its process: the hook is for all of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::{
    io,
    sync::{Arc, Mutex},
    thread,
};

use preload_sidecar::{metrics::Metrics, panics};

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_is_logged_with_its_place_and_counted() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let metrics = Metrics::new();
    panics::install(metrics.clone());
    tracing::subscriber::with_default(subscriber, || {
        let named = thread::Builder::new().name("worker".to_owned());
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let work = move || tracing::dispatcher::with_default(&dispatch, || panic!("out of {}", "cheese"));
        named.spawn(work).unwrap().join().unwrap_err();
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for part in ["ERROR", "panicked at", "panic_hook.rs:", "out of cheese", "thread=\"worker\"", "panic=1"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(metrics.render(&[], true).contains("preload_panics_total 1\n"));
}
