//! A TCP port in one network that leads to a server in another: between this machine and a [`Machine`].

use crate::leash;
use crate::machine::Machine;
use anyhow::{Context, Result};
use std::io::BufRead;
use std::process::{Child, ChildStdin, Command};
use std::sync::{Mutex, PoisonError};

/// A port that leads elsewhere. Dropping it ends its connections.
#[derive(Debug)]
pub struct Forward {
    address: String,
    leash: Child,
    claim: Mutex<Option<ChildStdin>>,
}

impl Forward {
    /// `address` is here, `target` there; port 0 is one that is free.
    pub fn to(machine: &Machine, address: &str, target: &str) -> Result<Self> {
        Self::new("-", address, &machine.pid().to_string(), target)
    }

    /// `address` is there, `target` here.
    pub fn from(machine: &Machine, address: &str, target: &str) -> Result<Self> {
        Self::new(&machine.pid().to_string(), address, "-", target)
    }

    fn new(from: &str, address: &str, to: &str, target: &str) -> Result<Self> {
        let mut command = Command::new(leash::sibling(leash::PROGRAM)?);
        command.args(["forward", from, address, to, target]);
        let (leash, claim, mut events) = leash::spawn(command)?;
        let mut line = String::new();
        events.read_line(&mut line).context("read from the leash")?;
        let address = line.trim_end().strip_prefix("listening ");
        let address = address.with_context(|| format!("nothing listens on {address:?} for {target}"))?;
        Ok(Self { address: address.to_owned(), leash, claim: Mutex::new(Some(claim)) })
    }

    /// `HOST:PORT` to connect to.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It ends with the pipe; an error means that it is gone already.
        let _ = self.leash.wait();
    }
}
