//! The parts of `preloadctl`.
//!
//! `args` is what the user typed, `run` carries it out through the client of the contract, `follow` and
//! `view` show a load while it works, `card`, `table`, `words` and `text` put messages into words, `json`
//! prints them for programs, `error` and `exit` say what went wrong.
//!
//! Invariants: standard output carries results only, everything else goes to standard error; no byte that
//! a server sent reaches a terminal unescaped; no exit code claims more than is known.

pub mod args;
mod card;
mod error;
pub mod exit;
mod follow;
mod json;
pub mod run;
mod table;
mod text;
mod view;
mod words;
