//! Carries out one command and says how it ended.

mod pages;

use crate::{
    args::{Args, Command, Global, Output, Start},
    card,
    error::{Error, note},
    exit::Exit,
    follow::follow,
    json::Json,
    text,
    view::View,
    words::{self, Paint},
};
use alluxio_preload_api::{
    client::{Client, ClientConfig, Tls, Token, WatchOptions, is_terminal},
    v1::{Load, LoadSpec, StartLoadRequest, load::State},
};
use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    time::{Duration, SystemTime},
};
use tonic::{Code, Status};

/// Runs the command; what it has to say against it is on standard error when this returns.
pub async fn run(args: Args) -> Exit {
    let Args { global, command } = args;
    let result = match Session::new(global) {
        Ok(session) => session.execute(command).await,
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| {
        if let Some(report) = error.report() {
            note(&report);
        }
        error.exit()
    })
}

/// What all commands share.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    address: String,
    output: Output,
    terminal: bool,
    paint: Paint,
    /// Columns of the terminal.
    width: Option<usize>,
}

impl Session {
    fn new(global: Global) -> Result<Self, Error> {
        let Global {
            address,
            tls_ca,
            tls_cert,
            tls_key,
            tls_server_name,
            token_file,
            allow_insecure,
            output,
            color,
        } = global;
        let terminal = io::stdout().is_terminal();
        let on = color.on(terminal, std::env::var("NO_COLOR").ok().as_deref());
        console::set_colors_enabled(on);
        let mut config = ClientConfig::new(address.clone());
        if let Some(ca) = tls_ca {
            let identity = match (tls_cert, tls_key) {
                (Some(certificate), Some(key)) => Some((read(&certificate)?, read(&key)?)),
                _ => None,
            };
            config.tls = Some(Tls { ca: read(&ca)?, identity, server_name: tls_server_name });
        }
        config.token = token_file.map(Token::File);
        config.allow_plaintext_token = allow_insecure;
        Ok(Self {
            client: Client::new(config)?,
            address: address.to_string(),
            output,
            terminal,
            paint: Paint { on },
            width: terminal.then(|| usize::from(console::Term::stdout().size().1)),
        })
    }

    async fn execute(&self, command: Command) -> Result<Exit, Error> {
        match command {
            Command::Start(start) => self.start(start).await,
            Command::Get { id } => {
                let load = self.client.get_load(&id).await.map_err(|e| self.failed(e))?;
                self.print(&self.one(&load, |load| card::card(load, self.paint, SystemTime::now()))?)?;
                Ok(Exit::Ok)
            }
            Command::Watch { id, follow } => {
                // A watch is patient; the first answer should not be.
                let load = self.client.get_load(&id).await.map_err(|e| self.failed(e))?;
                Ok(reached(self.watch(&load, follow).await?, State::Loaded))
            }
            Command::List(list) => self.list(list).await,
            Command::Cancel { id, watch } => {
                let load = self.client.cancel_load(&id).await.map_err(|e| self.failed(e))?;
                if watch {
                    return Ok(reached(self.watch(&load, false).await?, State::Cancelled));
                }
                self.print(&self.one(&load, |load| words::state_line(load, self.paint) + "\n")?)?;
                Ok(Exit::Ok)
            }
            Command::Verify { id } => self.verify(&id).await,
            Command::Failures { id, limit } => self.failures(id, limit).await,
            Command::Delete { id } => {
                self.client.delete_load(&id).await.map_err(|e| self.failed(e))?;
                Ok(Exit::Ok)
            }
        }
    }

    async fn start(&self, start: Start) -> Result<Exit, Error> {
        let (request, watch) = request(start);
        let load = self.client.start_load(request).await.map_err(|status| {
            // After a refused connection nothing has happened; after silence nobody knows.
            let unsure = status.code() != Code::Unavailable && self.failed_exit(&status) == Exit::Unreachable;
            let hint = unsure.then_some("the load may have been started: preloadctl list");
            self.call_error(status, hint)
        })?;
        if is_terminal(load.state(), false) && load.state() != State::Loaded {
            note("next: the id belongs to this load, which has ended; start the next one with another --id");
        }
        if watch {
            return Ok(reached(self.watch(&load, false).await?, State::Loaded));
        }
        self.print(&self.one(&load, |load| words::state_line(load, self.paint) + "\n")?)?;
        if !is_terminal(load.state(), false) {
            if self.terminal {
                note(&format!("follow it with: preloadctl watch {}", text::clean(&load.id)));
            }
            return Ok(Exit::Ok);
        }
        Ok(reached(load.state(), State::Loaded))
    }

    async fn verify(&self, id: &str) -> Result<Exit, Error> {
        let load = self.client.verify_load(id).await.map_err(|e| self.failed(e))?;
        self.print(&self.one(&load, |load| words::verdict_line(load, self.paint) + "\n")?)?;
        if load.state() == State::Stale {
            note(&format!("next: {} brings back what is missing", words::same_start(&load)));
        }
        Ok(reached(load.state(), State::Loaded))
    }

    /// Follows a load from what is known of it, so that no change since is missed.
    async fn watch(&self, load: &Load, beyond: bool) -> Result<State, Error> {
        let view = match self.output {
            Output::Json => View::json(Json::new()?),
            Output::Text if self.terminal => View::bar(self.paint),
            Output::Text => View::lines(self.paint),
        };
        let watch = self.client.watch_load(&load.id, WatchOptions { follow: beyond, ..Default::default() });
        follow(self, load, watch, view).await
    }

    /// One load in the wished form.
    fn one(&self, load: &Load, text: impl FnOnce(&Load) -> String) -> Result<String, Error> {
        match self.json()? {
            Some(json) => Ok(json.load(load)? + "\n"),
            None => Ok(text(load)),
        }
    }

    fn json(&self) -> Result<Option<Json>, Error> {
        Ok(if self.output == Output::Json { Some(Json::new()?) } else { None })
    }

    fn print(&self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    pub(crate) fn failed(&self, status: Status) -> Error {
        self.call_error(status, None)
    }

    fn call_error(&self, status: Status, hint: Option<&'static str>) -> Error {
        Error::Call { address: self.address.clone(), status: Box::new(status), hint }
    }

    fn failed_exit(&self, status: &Status) -> Exit {
        Exit::of(status.code(), alluxio_preload_api::client::is_unreachable(status))
    }
}

fn reached(state: State, wished: State) -> Exit {
    if state == wished { Exit::Ok } else { Exit::Ended }
}

fn request(start: Start) -> (StartLoadRequest, bool) {
    let Start {
        path,
        id,
        replicas,
        engine,
        load_metadata,
        min_workers,
        allow_evict,
        wait_timeout,
        timeout,
        max_attempts,
        reverify_interval,
        max_bytes_per_second,
        labels,
        watch,
    } = start;
    let mut spec = LoadSpec {
        path,
        replicas,
        min_workers,
        allow_evict,
        wait_timeout: wait_timeout.and_then(proto_duration),
        timeout: timeout.and_then(proto_duration),
        max_attempts,
        labels: labels.into_iter().collect(),
        reverify_interval: reverify_interval.and_then(proto_duration),
        max_bytes_per_second: max_bytes_per_second.as_u64(),
        ..LoadSpec::default()
    };
    spec.set_engine(engine.into());
    spec.set_load_metadata(load_metadata.into());
    (StartLoadRequest { load_id: id.unwrap_or_default(), spec: Some(spec) }, watch)
}

/// Durations too long for protobuf (292 billion years) are no limit.
fn proto_duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.display().to_string(), source })
}
