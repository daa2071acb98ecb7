//! When a cluster is ready: its ports answer, and its workers have registered.

use super::{Cluster, Role};
use crate::http;
use crate::leash::Exit;
use crate::wait;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use tokio::net::TcpStream;

/// Starting six JVMs takes 10 s on two idle cores, and several clusters may start at once.
pub(super) const START_LIMIT: Duration = Duration::from_secs(180);
/// What a master logs of a worker.
const WORKER_REGISTERED: &str = "Worker successfully registered";

impl Cluster {
    pub(super) async fn ready(&self) -> Result<()> {
        let ready = wait::until("Alluxio to be ready", START_LIMIT, async || {
            if let Some(role) = self.first_ended() {
                return Ok(Some(Err(role)));
            }
            Ok(self.is_ready().await?.then_some(Ok(())))
        });
        match ready.await.and_then(|ready| ready.map_err(|role| anyhow::anyhow!("{role} has ended"))) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.log_excerpt())),
        }
    }

    /// A process that ended by itself; one that a test killed is not in the way.
    fn first_ended(&self) -> Option<Role> {
        let ended = |exit| matches!(exit, Some(Exit::Code(_)));
        self.roles().iter().find(|(_, running)| ended(running.leash.exit())).map(|(role, _)| *role)
    }

    async fn is_ready(&self) -> Result<bool> {
        let running: Vec<_> = {
            let roles = self.roles();
            roles.iter().filter(|(_, r)| r.leash.is_running()).map(|(role, r)| (*role, r.log_start)).collect()
        };
        let runs = |role| running.iter().any(|(other, _)| *other == role);
        for (role, log_start) in &running {
            let host = self.address(*role);
            TcpStream::connect((host.as_str(), role.port()))
                .await
                .with_context(|| format!("{role}'s port"))?;
            let registered = match role {
                Role::Master => {
                    http::get_json(&self.web_address(), "/api/v1/master/webui_workers").await?;
                    true
                }
                Role::Worker(_) if runs(Role::Master) => {
                    self.has_registered(Role::Master, *log_start, WORKER_REGISTERED, &host)?
                }
                Role::JobWorker(_) if runs(Role::JobMaster) => {
                    self.has_registered(Role::JobMaster, *log_start, "registerWorker()", &host)?
                }
                _ => true,
            };
            if !registered {
                bail!("{role} has not registered");
            }
        }
        Ok(true)
    }

    /// Whether the master's log says so after `start`. The log and not a list of workers, which goes on
    /// naming a dead worker for minutes.
    fn has_registered(&self, master: Role, start: u64, line: &str, host: &str) -> Result<bool> {
        let log = fs::read(self.log(master)).with_context(|| format!("read the log of {master}"))?;
        let log = String::from_utf8_lossy(log.get(usize::try_from(start)?..).unwrap_or_default());
        let host = format!("host={host},");
        Ok(log.lines().any(|text| text.contains(line) && text.contains(&host)))
    }

    /// Whether a worker runs and has registered with the master that runs, since both were started.
    pub fn is_registered(&self, worker: Role) -> Result<bool> {
        let running = |role| {
            let roles = self.roles();
            roles.get(&role).filter(|r| r.leash.is_running()).map(|running| running.log_start)
        };
        let (Some(start), true) = (running(worker), running(Role::Master).is_some()) else {
            return Ok(false);
        };
        self.has_registered(Role::Master, start, WORKER_REGISTERED, &self.address(worker))
    }

    /// Numbers of the workers that run and have registered: taken at once, as the dead ones come back.
    pub fn registered_workers(&self) -> Result<BTreeSet<usize>> {
        let mut registered = BTreeSet::new();
        for worker in 1..=self.options.workers {
            if self.is_registered(Role::Worker(worker))? {
                registered.insert(worker);
            }
        }
        Ok(registered)
    }
}
