//! What a watch looks like: a bar on a terminal, lines in a pipe, or JSON.

mod bar;
mod lines;

use crate::{
    error::{Error, note},
    json::Json,
    text,
    words::Paint,
};
use alluxio_preload_api::{client::Explanation, v1::Load};
use bar::Bar;
use lines::Lines;
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};
use tonic::Status;

#[derive(Debug)]
pub(crate) enum View {
    Bar(Bar),
    Lines(Lines),
    Json { json: Json, last: Option<u64> },
}

impl View {
    pub(crate) fn bar(paint: Paint) -> Self {
        Self::Bar(Bar::new(indicatif::ProgressDrawTarget::stdout(), paint))
    }

    pub(crate) fn lines(paint: Paint) -> Self {
        Self::Lines(Lines::new(paint))
    }

    pub(crate) fn json(json: Json) -> Self {
        Self::Json { json, last: None }
    }

    pub(crate) fn load(&mut self, load: &Load) -> Result<(), Error> {
        match self {
            Self::Bar(bar) => bar.load(load),
            Self::Lines(lines) => print(lines.load(load, Instant::now()))?,
            Self::Json { json, last } => {
                // Heartbeats say nothing new.
                if last.replace(load.sequence) != Some(load.sequence) {
                    print([json.load(load)?])?;
                }
            }
        }
        Ok(())
    }

    /// The connection broke and will be tried again.
    pub(crate) fn lost(&mut self, error: &Status, retry_in: Duration) {
        let message = Explanation::of(error).message;
        let line = format!("connection lost, next try in {:.1?}: {}", retry_in, text::clean(&message));
        match self {
            Self::Bar(bar) => bar.lost(line),
            Self::Lines(_) | Self::Json { .. } => note(&line),
        }
    }

    /// Turns the spinner. Only a terminal needs it.
    pub(crate) fn tick(&self) {
        if let Self::Bar(bar) = self {
            bar.tick();
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn close(&mut self) {
        if let Self::Bar(bar) = self {
            bar.close();
        }
    }
}

/// Each line reaches the reader of a pipe at once.
fn print(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
