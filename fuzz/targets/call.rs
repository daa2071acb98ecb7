//! What a client may call.

use std::collections::{BTreeMap, HashMap};

use alluxio_preload_api::v1;
use arbitrary::Arbitrary;

#[derive(Arbitrary, Debug, Clone)]
pub enum Id {
    Known(u8),
    Given(String),
}

#[derive(Arbitrary, Debug, Clone)]
pub enum Text {
    Nothing,
    Short(String),
    /// One character, many times.
    Long(char, u16),
}

#[derive(Arbitrary, Debug, Clone)]
pub enum Path {
    Good(u8),
    Given(Text),
}

#[derive(Arbitrary, Debug, Clone)]
pub struct Span {
    seconds: i64,
    nanos: i32,
}

#[derive(Arbitrary, Debug, Clone)]
pub struct Wish {
    path: Path,
    replicas: Option<u32>,
    engine: i32,
    load_metadata: i32,
    min_workers: u32,
    allow_evict: bool,
    wait_timeout: Option<Span>,
    timeout: Option<Span>,
    max_attempts: u32,
    labels: Vec<(Text, Text)>,
    reverify_interval: Option<Span>,
    max_bytes_per_second: u64,
}

#[derive(Arbitrary, Debug, Clone)]
pub enum Token {
    Last,
    Given(Text),
}

#[derive(Arbitrary, Debug, Clone)]
pub enum Call {
    /// A plain wish that is accepted.
    Start(Id, u8),
    StartAny(Id, Option<Wish>),
    Get(Id),
    Watch {
        id: Id,
        follow: bool,
        after_sequence: u64,
    },
    List {
        page_size: i32,
        token: Token,
        states: Vec<i32>,
        path: Path,
        labels: Vec<(Text, Text)>,
    },
    Cancel(Id),
    Verify(Id),
    Failures {
        id: Id,
        page_size: i32,
        token: Token,
    },
    Delete(Id),
    /// The sidecar stops, and another takes over its store.
    Restart,
}

pub fn plain(path: u8) -> v1::LoadSpec {
    v1::LoadSpec { path: Path::Good(path).text(), ..v1::LoadSpec::default() }
}

pub fn map(labels: Vec<(Text, Text)>) -> HashMap<String, String> {
    // In the order of their keys, so that a case is always the same.
    let sorted: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.text(), value.text())).collect();
    sorted.into_iter().collect()
}

impl Id {
    pub fn text(&self) -> String {
        match self {
            Id::Known(number) => format!("load-{}", number % 6),
            Id::Given(text) => text.clone(),
        }
    }
}

impl Text {
    pub fn text(self) -> String {
        match self {
            Text::Nothing => String::new(),
            Text::Short(text) => text,
            Text::Long(character, times) => {
                character.to_string().repeat(usize::from(times) / character.len_utf8())
            }
        }
    }
}

impl Path {
    pub fn text(self) -> String {
        match self {
            Path::Good(number) => ["/", "/a", "/a/b", "/a/c", "/ab"][usize::from(number) % 5].to_owned(),
            Path::Given(text) => text.text(),
        }
    }
}

impl Token {
    pub fn text(self, last: &str) -> String {
        match self {
            Token::Last => last.to_owned(),
            Token::Given(text) => text.text(),
        }
    }
}

impl Wish {
    pub fn spec(self) -> v1::LoadSpec {
        let span =
            |span: Option<Span>| span.map(|s| prost_types::Duration { seconds: s.seconds, nanos: s.nanos });
        v1::LoadSpec {
            path: self.path.text(),
            replicas: self.replicas,
            engine: self.engine,
            load_metadata: self.load_metadata,
            min_workers: self.min_workers,
            allow_evict: self.allow_evict,
            wait_timeout: span(self.wait_timeout),
            timeout: span(self.timeout),
            max_attempts: self.max_attempts,
            labels: map(self.labels),
            reverify_interval: span(self.reverify_interval),
            max_bytes_per_second: self.max_bytes_per_second,
        }
    }
}
