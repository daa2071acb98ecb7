//! Splits what a command prints into lines, in bounded memory.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line handed on; the rest of a longer one is dropped. PATH_MAX is 4 KiB.
pub const MAX_LINE: usize = 16 * 1024;

/// Lines of any bytes, each cut to [`MAX_LINE`].
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The line in `line` was handed out.
    done: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), done: false }
    }

    /// Without its line end; `None` after the last. Cancel safe: what was read stays in `line`.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.done {
            self.line.clear();
            self.done = false;
        }
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                self.done = true;
                return Ok((!self.line.is_empty()).then_some(&self.line));
            }
            let end = available.iter().position(|&b| b == b'\n');
            let taken = end.unwrap_or(available.len());
            let room = MAX_LINE - self.line.len().min(MAX_LINE);
            self.line.extend_from_slice(&available[..taken.min(room)]);
            self.reader.consume(end.map_or(taken, |end| end + 1));
            if end.is_some() {
                self.done = true;
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(input);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line.to_vec());
        }
        all
    }

    #[tokio::test]
    async fn lines_are_split_and_cut() {
        assert_eq!(lines(b"a\n\nb").await, [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"").await, Vec::<Vec<u8>>::new());
        let long = [vec![b'x'; 3 * MAX_LINE], b"\nnext\n".to_vec()].concat();
        let got = lines(&long).await;
        assert_eq!((got[0].len(), &got[1][..]), (MAX_LINE, &b"next"[..]));
    }
}
