//! Does what a plan says to the sidecar and to Alluxio, and mends it again.
//!
//! Invariant: when a lane has ended, everything that it broke is whole.

use super::clock::MovedClock;
use super::history::What;
use super::plan::{Blow, Fault, Link};
use super::record::Record;
use super::witness::Deaths;
use crate::cluster::Cluster;
use crate::proxy::Proxy;
use crate::sidecar::Sidecar;
use crate::small_disk::SmallDisk;
use crate::wait;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// What faults are done to.
#[derive(Debug, Clone, Copy)]
pub struct Victims<'a> {
    pub cluster: &'a Cluster,
    pub disk: &'a SmallDisk,
    pub clock: &'a MovedClock,
    pub links: &'a Links,
    pub record: &'a Record,
    pub deaths: &'a Deaths,
}

/// The connections that can be cut.
#[derive(Debug)]
pub struct Links {
    pub clients: Proxy,
    pub master: Proxy,
    pub job_master: Proxy,
}

impl Links {
    fn of(&self, link: Link) -> &Proxy {
        match link {
            Link::Clients => &self.clients,
            Link::Master => &self.master,
            Link::JobMaster => &self.job_master,
        }
    }
}

impl Victims<'_> {
    /// One fault after the other. `sidecar` is there for the lane that may kill it.
    pub async fn suffer(self, blows: &[Blow], mut sidecar: Option<&mut Sidecar<'_>>) -> Result<()> {
        for blow in blows {
            tokio::time::sleep(blow.after).await;
            let begun = self.record.now();
            let done = self.suffer_one(blow.fault, blow.lasting, sidecar.as_deref_mut()).await;
            let done = done.with_context(|| format!("{blow:?}"))?;
            if done {
                let words = format!("{:?} for {:.2} s", blow.fault, blow.lasting.as_secs_f64());
                self.record.add(begun, What::Fault(blow.fault, words));
            }
        }
        Ok(())
    }

    /// Whether there was anything to be hit.
    async fn suffer_one(
        self,
        fault: Fault,
        lasting: Duration,
        sidecar: Option<&mut Sidecar<'_>>,
    ) -> Result<bool> {
        let pause = async || tokio::time::sleep(lasting).await;
        match (fault, sidecar) {
            (Fault::KillSidecar, Some(sidecar)) => {
                sidecar.kill9().await?;
                pause().await;
                sidecar.restart().await?;
            }
            (Fault::PauseSidecar, Some(sidecar)) => {
                sidecar.signal(Signal::SIGSTOP)?;
                pause().await;
                sidecar.signal(Signal::SIGCONT)?;
            }
            (Fault::ReadOnlyDisk, Some(sidecar)) => {
                sidecar.kill9().await?;
                // What the sidecar had started may write there for some seconds yet.
                wait::until("the disk to be read-only", wait::LIMIT, async || {
                    self.disk.read_only(true).map(Some)
                })
                .await?;
                let mended = async {
                    pause().await;
                    self.disk.read_only(false)
                };
                let (restarted, mended) = tokio::join!(sidecar.restart(), mended);
                mended.and(restarted)?;
            }
            (Fault::KillCommand | Fault::PauseCommand, Some(sidecar)) => {
                let commands = sidecar.descendants()?;
                let Some(command) = commands.iter().find(|p| p.command.contains(" alluxio.cli.")) else {
                    return Ok(false);
                };
                let pid = Pid::from_raw(i32::try_from(command.pid)?);
                // An error: it has just ended by itself.
                if fault == Fault::KillCommand {
                    return Ok(kill(pid, Signal::SIGKILL).is_ok());
                }
                let paused = kill(pid, Signal::SIGSTOP).is_ok();
                pause().await;
                let _ = kill(pid, Signal::SIGCONT);
                return Ok(paused);
            }
            (Fault::FillDisk, _) => {
                self.disk.fill()?;
                pause().await;
                self.disk.make_room()?;
            }
            // It stays moved: clocks that are wrong stay wrong.
            (Fault::MoveClock(seconds), _) => self.clock.move_by(seconds)?,
            (Fault::Cut(link), _) => {
                self.links.of(link).cut().await;
                pause().await;
                self.links.of(link).mend().await?;
            }
            (Fault::Silence(link), _) => {
                self.links.of(link).silence(true);
                pause().await;
                self.links.of(link).silence(false);
            }
            (Fault::Delay(link, delay), _) => {
                self.links.of(link).delay(delay);
                pause().await;
                self.links.of(link).delay(Duration::ZERO);
            }
            (Fault::Kill(role), _) => {
                let death = self.deaths.begin(role);
                self.cluster.kill(role, Signal::SIGKILL).await?;
                self.deaths.end(death);
                pause().await;
                self.cluster.start_role(role).await?;
            }
            (Fault::Pause(role), _) => {
                self.cluster.signal(role, Signal::SIGSTOP)?;
                pause().await;
                self.cluster.signal(role, Signal::SIGCONT)?;
            }
            (Fault::KillSidecar | Fault::PauseSidecar | Fault::ReadOnlyDisk, None)
            | (Fault::KillCommand | Fault::PauseCommand, None) => return Ok(false),
        }
        Ok(true)
    }
}
