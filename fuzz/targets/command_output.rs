//! What `alluxio fs distributedLoad` prints, or anything else on its pipe.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preload_sidecar::engine::output::Output;

/// Lines and bytes that a message may take, whatever was printed.
const LINES: usize = 20;
const BYTES: usize = 20 * 4 * 400 + 20 * 3;

fuzz_target!(|bytes: &[u8]| {
    let mut output = Output::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        output.read(line);
    }
    assert!(output.tail(usize::MAX).len() <= BYTES);
    assert!(output.tail(1).len() <= BYTES / LINES);
    // Read again, the same is understood.
    let mut again = Output::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        again.read(line);
    }
    assert_eq!(output, again);
    let told = output.job_control_id.is_some() || output.summary.is_some();
    assert!(output.worked || !told, "it told of work and did none");
});
