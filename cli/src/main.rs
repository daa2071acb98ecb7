//! `preloadctl`: start, get, watch, list and cancel loads, for people and scripts.

use clap::Parser;
use preloadctl::{args::Args, run};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run::run(Args::parse()).await.into()
}
