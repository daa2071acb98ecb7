//! The calls.

use crate::{
    CommandJob, Config, Error, File, Job, JobStatus, JobWorker, Listing, LoadMetadata, MasterInfo, Worker,
    WorkerAddress,
};
use std::sync::Arc;

/// A client of one Alluxio cluster. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<Config>,
}

impl Client {
    /// Connects on first use.
    pub fn new(config: Config) -> Client {
        Client { config: Arc::new(config) }
    }

    fn missing<T>(&self) -> Result<T, Error> {
        Err(Error::Protocol { message: format!("not there yet, {}", self.config.user) })
    }

    /// Everything below `path`, recursively.
    pub async fn list(&self, _path: &str, _metadata: LoadMetadata) -> Result<Listing, Error> {
        self.missing()
    }

    /// One file or folder.
    pub async fn status(&self, _path: &str) -> Result<File, Error> {
        self.missing()
    }

    /// The block workers.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        self.missing()
    }

    /// Identity of the cluster.
    pub async fn cluster_id(&self) -> Result<String, Error> {
        self.missing()
    }

    /// The leading master about itself.
    pub async fn master_info(&self) -> Result<MasterInfo, Error> {
        self.missing()
    }

    /// Sets the limit of copies of one file; -1 is unlimited.
    pub async fn set_replication_max(&self, _path: &str, _max: i32) -> Result<(), Error> {
        self.missing()
    }

    /// A round trip to a block worker.
    pub async fn ping_worker(&self, _address: &WorkerAddress) -> Result<(), Error> {
        self.missing()
    }

    /// Jobs in these states; none given: all.
    pub async fn jobs(&self, _statuses: &[JobStatus]) -> Result<Vec<Job>, Error> {
        self.missing()
    }

    /// Ids of the jobs in these states; none given: all.
    pub async fn job_ids(&self, _statuses: &[JobStatus]) -> Result<Vec<i64>, Error> {
        self.missing()
    }

    /// Asks for the end of a job.
    pub async fn cancel_job(&self, _id: i64) -> Result<(), Error> {
        self.missing()
    }

    /// The child jobs of a command.
    pub async fn command_jobs(&self, _job_control_id: i64) -> Result<Vec<CommandJob>, Error> {
        self.missing()
    }

    /// The job workers.
    pub async fn job_workers(&self) -> Result<Vec<JobWorker>, Error> {
        self.missing()
    }
}
