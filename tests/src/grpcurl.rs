//! The real grpcurl: what a user without any of our programs types.

use crate::prerequisites;
use crate::sandbox::{Output, Sandbox};
use crate::wait;
use anyhow::Result;
use std::ffi::OsStr;
use std::process::Command;

/// Runs `grpcurl ARGUMENT...`, such as `["-plaintext", "127.64.0.200:7001", "list"]`.
pub async fn grpcurl<S: AsRef<OsStr>>(sandbox: &Sandbox, arguments: &[S]) -> Result<Output> {
    let mut command = Command::new(prerequisites::grpcurl()?);
    command.args(arguments).current_dir(sandbox.directory());
    sandbox.run(&command, wait::LIMIT).await
}
