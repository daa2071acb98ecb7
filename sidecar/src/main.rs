//! The door: see [`preload_sidecar::program`].

use preload_sidecar::{clock::Clock, program};
use std::process::ExitCode;

fn main() -> ExitCode {
    program::main(Clock::system())
}
