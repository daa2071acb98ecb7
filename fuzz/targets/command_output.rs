//! What `alluxio fs distributedLoad` prints, or anything else on its pipe, in pieces of any size.
//!
//! `0xff` and a byte n stand for 256 n letters: so a short case has lines that are longer than is kept.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::engine::{
    lines::{Lines, MAX_LINE},
    output::Output,
};
use tokio::io::{AsyncRead, ReadBuf};

/// Lines and bytes that a message may take, whatever was printed.
const LINES: usize = 20;
const BYTES: usize = 20 * 4 * 400 + 20 * 3;
/// Of one case: a few lines that are cut.
const MOST: usize = 3 * MAX_LINE;

fuzz_target!(|bytes: &[u8]| {
    let printed = stretched(bytes);
    // The last line may have no end.
    let mut wanted: Vec<&[u8]> = printed.split(|byte| *byte == b'\n').collect();
    if wanted.last().is_some_and(|last| last.is_empty()) {
        wanted.pop();
    }
    let mut output = Output::default();
    let mut number = 0;
    let mut lines = Lines::new(Pieces { left: &printed, seed: crc32fast::hash(bytes), ready: false });
    loop {
        // Given up whenever it has to wait, and asked again.
        let Some(line) = lines.next().now_or_never() else { continue };
        let Some(line) = line.expect("nothing to fail") else { break };
        assert_eq!(Some(line), wanted.get(number).map(|wanted| &wanted[..wanted.len().min(MAX_LINE)]));
        number += 1;
        output.read(line);
    }
    assert_eq!(number, wanted.len(), "lines are lost");

    assert!(output.tail(usize::MAX).len() <= BYTES);
    assert!(output.tail(1).len() <= BYTES / LINES);
    // Nothing is known that was not said.
    let said = |words: &str| printed.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(output.job_control_id.is_none() || said("jobControlId = "));
    assert!(output.summary.is_none() || said("ailed count is ") || said("failed file count is "));
    assert!(!output.path_missing || said("\" does not exist."));
    assert!(!output.unknown_command || said("is an unknown command."));
    assert!(!output.worked || said("jobControlId = ") || said("Successfully loaded") || said("ompleted"));
    let told = output.job_control_id.is_some() || output.summary.is_some();
    assert!(output.worked || !told, "it told of work and did none");
});

fn stretched(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next().filter(|_| all.len() < MOST) {
        match byte {
            0xff => all.resize(all.len() + 256 * usize::from(*bytes.next().unwrap_or(&0)), b'x'),
            byte => all.push(*byte),
        }
    }
    all
}

/// A pipe that has now much, now little, and nothing in between.
struct Pieces<'a> {
    left: &'a [u8],
    seed: u32,
    ready: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ready = !self.ready;
        if self.ready {
            return Poll::Pending;
        }
        // The constants are those of Numerical Recipes.
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = [1, 7, 300, 9000][self.seed as usize >> 30];
        let size = (1 + (self.seed >> 8) as usize % most).min(into.remaining()).min(self.left.len());
        let (piece, left) = self.left.split_at(size);
        into.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}
