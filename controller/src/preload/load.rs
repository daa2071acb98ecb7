//! A load as the sidecar tells of it, in plain types.

use jiff::Timestamp;

use crate::api::{FailedFile, Failures, Progress};

/// State of a load in the sidecar; see `preload.v1.Load.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Queued,
    Waiting,
    Listing,
    Loading,
    Verifying,
    Loaded,
    Failed,
    Cancelled,
    Stale,
}

impl State {
    /// Nothing happens any more by itself.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Loaded | Self::Failed | Self::Cancelled | Self::Stale)
    }
}

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub state: State,
    /// Such as `NotEnoughRoom`; empty without one.
    pub reason: String,
    pub message: String,
    pub engine: Option<String>,
    pub start_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    /// None until it was listed.
    pub progress: Option<Progress>,
    /// Of a load that has failed.
    pub failures: Option<Failures>,
}

/// Whether the sidecar answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contact {
    /// Not known yet.
    #[default]
    Connecting,
    Answering,
    /// It does not answer, or not in a way that helps; tried again and again.
    Failing {
        reason: &'static str,
        message: String,
    },
}

/// What it says of a load.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Answer {
    #[default]
    None,
    /// There is no such load.
    NotFound,
    /// It refuses to start it, whatever is tried: the spec must change.
    Refused {
        message: String,
    },
    Load(Box<Load>),
}

/// All that is known about one load in one sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub contact: Contact,
    pub answer: Answer,
}

impl Seen {
    /// The load, if the sidecar has it.
    #[must_use]
    pub fn load(&self) -> Option<&Load> {
        match &self.answer {
            Answer::Load(load) => Some(load),
            Answer::None | Answer::NotFound | Answer::Refused { .. } => None,
        }
    }

    /// Nothing is left to cancel.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.answer {
            Answer::Load(load) => load.state.is_over(),
            Answer::NotFound | Answer::Refused { .. } => true,
            Answer::None => false,
        }
    }
}

/// Keeps what fits into a resource: long names and words are cut.
#[must_use]
pub fn failed_file(path: &str, bytes_missing: u64, reason: &str) -> FailedFile {
    FailedFile {
        path: shorten(path, 512),
        bytes_missing: i64::try_from(bytes_missing).unwrap_or(i64::MAX),
        reason: shorten(reason, 256),
    }
}

/// At most `length` characters, with an ellipsis where something was cut.
#[must_use]
pub fn shorten(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_owned(),
        Some(_) => text.chars().take(length.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
