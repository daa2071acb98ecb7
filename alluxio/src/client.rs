//! The calls. Each is one RPC, may be repeated without harm, and is tried again when the connection was lost (see
//! `servers`).

use crate::{
    CommandJob, Config, Error, File, Job, JobStatus, JobWorker, Listing, LoadMetadata, MasterInfo, Worker,
    WorkerAddress,
    connection::{Connection, MAX_MESSAGE, Service},
    servers::Servers,
    wire::{block, file, job, meta, version::ServiceType},
};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::task::TaskTracker;
use tonic::{Response, Status};
use tracing::Instrument;

use block::block_master_client_service_client::BlockMasterClientServiceClient;
use file::file_system_master_client_service_client::FileSystemMasterClientServiceClient;
use job::job_master_client_service_client::JobMasterClientServiceClient;
use meta::meta_master_client_service_client::MetaMasterClientServiceClient;

/// Longest silence within a listing that loads no metadata, as of a master in a long garbage collection: a listing of a
/// million files is not begun anew for less.
const LISTING_SILENCE: Duration = Duration::from_secs(30);

/// Listings that load metadata at once. They go on when nobody waits for them any more, so their number is bounded here.
const LOADING_METADATA: usize = 32;

/// For a worker to end what nobody waits for any more, such as one in a long garbage collection.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// A client of one Alluxio cluster. Cheap to clone; clones share their connections: one to the leading master, one to
/// the leading job master, one to each worker that was pinged.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    master: Servers,
    job_master: Servers,
    /// By `host:port`. Bounded by the cluster: a worker that does not answer, or is not listed any more, goes.
    workers: Mutex<HashMap<String, Arc<Servers>>>,
    /// Calls under which the master loads metadata or a worker caches blocks; see [`Client::unbroken`].
    unbroken: TaskTracker,
    /// Of those, listings.
    loading_metadata: Arc<Semaphore>,
}

impl Client {
    /// Connects and authenticates at the first call, and again whenever a connection is lost.
    pub fn new(config: Config) -> Client {
        let config = Arc::new(config);
        Client {
            inner: Arc::new(Inner {
                master: Servers::new(
                    ServiceType::FileSystemMasterClientService,
                    config.masters.clone(),
                    config.clone(),
                ),
                job_master: Servers::new(
                    ServiceType::JobMasterClientService,
                    config.job_masters.clone(),
                    config.clone(),
                ),
                workers: Mutex::default(),
                unbroken: TaskTracker::new(),
                loading_metadata: Arc::new(Semaphore::new(LOADING_METADATA)),
                config,
            }),
        }
    }

    /// Everything below `path`, recursively, folders too. A folder does not list itself, a file does; an empty folder
    /// lists nothing. Returns with the first answer: with [`LoadMetadata::Once`] after the metadata of the whole tree is
    /// loaded (213 s for 100,000 new files, 0.3 s for known ones, on a busy machine with two cores). Where metadata may
    /// be loaded, the call goes on until then or for [`Config::listing_idle_timeout`], whoever gives up waiting.
    pub async fn list(&self, path: &str, metadata: LoadMetadata) -> Result<Listing, Error> {
        let idle_timeout = match metadata {
            LoadMetadata::Never => self.inner.config.call_timeout.max(LISTING_SILENCE),
            LoadMetadata::Once | LoadMetadata::Always => self.inner.config.listing_idle_timeout,
        };
        let request = file::ListStatusPRequest {
            path: Some(path.to_owned()),
            options: Some(file::ListStatusPOptions {
                load_metadata_type: Some(file::LoadMetadataPType::from(metadata).into()),
                common_options: Some(metadata.into()),
                recursive: Some(true),
            }),
        };
        let (client, path) = (self.clone(), path.to_owned());
        let listing = async move {
            let open = |connection| Listing::open(connection, request.clone(), idle_timeout);
            client.inner.master.call(idle_timeout, Some(&path), open).await
        };
        match metadata {
            LoadMetadata::Never => listing.await,
            LoadMetadata::Once | LoadMetadata::Always => {
                // It is never closed, and who gives up waiting here has asked for nothing yet.
                let permit = self.inner.loading_metadata.clone().acquire_owned().await;
                let bounded = async move {
                    let _permit = permit;
                    listing.await
                };
                self.unbroken(bounded).await
            }
        }
    }

    /// Runs a call under which the master loads metadata in a task of its own, so that it has its answer even if
    /// nobody waits for it any more. When a caller hangs up, Alluxio stops between the two steps that make a file known
    /// (2.9.3, `InodeSyncStream`; issue #12647): it stays incomplete, and nobody can read it until it is removed from
    /// Alluxio by hand.
    async fn unbroken<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = self.inner.unbroken.spawn(call.in_current_span()).await;
        ended.unwrap_or_else(|ended| {
            Err(Error::Protocol { message: format!("the call ended early: {ended}") })
        })
    }

    /// As [`Client::unbroken`], for a worker that caches blocks; the caller has its answer or an error within `deadline`.
    /// When a client hangs up, a worker that is about to tell the master of a block over a new connection fails to, and
    /// tries again for two minutes (2.9.3: `BlockMasterClient` connects in the context of the cancelled call). The block
    /// stays half made, and all others wait behind the few connections of that kind.
    pub(crate) async fn unbroken_by<T, F>(
        &self,
        deadline: Duration,
        worker: &WorkerAddress,
        call: impl Fn(Arc<Connection>) -> F + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let (client, address) = (self.clone(), worker.clone());
        let patient = async move { client.worker(&address, deadline + ENDS_WITHIN, None, call).await };
        match timeout(deadline, self.unbroken(patient)).await {
            Ok(ended) => ended,
            Err(_) => {
                let server = worker.to_string();
                // The next call has a connection of its own.
                self.known_workers().remove(&server);
                Err(Error::DeadlineExceeded { server, after: deadline })
            }
        }
    }

    /// Waits until no master loads metadata, and no worker caches blocks, for us any more. Before a process ends, it
    /// waits for this.
    pub async fn settled(&self) {
        self.inner.unbroken.close();
        self.inner.unbroken.wait().await;
    }

    /// One file or folder, with the metadata that the master has or, where it has none, finds in the UFS. `path/..` is
    /// resolved by the master; a path below a file is [`Error::InvalidArgument`].
    pub async fn status(&self, path: &str) -> Result<File, Error> {
        let request = file::GetStatusPRequest {
            path: Some(path.to_owned()),
            options: Some(file::GetStatusPOptions {
                load_metadata_type: Some(file::LoadMetadataPType::Once.into()),
                common_options: Some(LoadMetadata::Once.into()),
                update_timestamps: Some(false),
            }),
        };
        let (client, path) = (self.clone(), path.to_owned());
        let status = async move {
            let ask = |service| {
                let request = request.clone();
                async move {
                    FileSystemMasterClientServiceClient::new(service)
                        .max_decoding_message_size(MAX_MESSAGE)
                        .get_status(request)
                        .await
                }
            };
            client.master(Some(&path), ask).await
        };
        let response = self.unbroken(status).await?;
        response.file_info.ok_or_else(|| missing("a status has no file"))?.try_into()
    }

    /// The block workers that the master takes for alive: also those that died less than
    /// `alluxio.master.worker.timeout` (5 min) ago, so look at [`Worker::last_contact`].
    ///
    /// Asks for a report: it is made anew for each call, whereas the plain list of workers is up to 10 s old
    /// (`alluxio.master.worker.info.cache.refresh.time`), its heartbeats and used bytes included.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let response = self
            .master(None, |service| async move {
                BlockMasterClientServiceClient::new(service)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .get_worker_report(live_workers())
                    .await
            })
            .await?;
        let workers: Vec<Worker> =
            response.worker_infos.into_iter().map(Worker::try_from).collect::<Result<_, _>>()?;
        self.known_workers()
            .retain(|address, _| workers.iter().any(|worker| worker.address.to_string() == *address));
        Ok(workers)
    }

    /// Identity of the cluster, a UUID made with the journal: it stays when a master is killed and restarted and when
    /// another master takes over, and is another one after the journal was formatted.
    pub async fn cluster_id(&self) -> Result<String, Error> {
        let info = self.master_info().await?;
        if info.cluster_id.is_empty() {
            return Err(missing("the master has no cluster id"));
        }
        Ok(info.cluster_id)
    }

    /// The leading master about itself.
    pub async fn master_info(&self) -> Result<MasterInfo, Error> {
        let response = self
            .master(None, |service| async move {
                MetaMasterClientServiceClient::new(service)
                    .get_master_info(meta::GetMasterInfoPOptions {
                        filter: MASTER_INFO.map(i32::from).to_vec(),
                    })
                    .await
            })
            .await?;
        Ok(response.master_info.ok_or_else(|| missing("no master info"))?.into())
    }

    /// Sets the limit of copies of a file, or of **all files below** a folder; -1 is unlimited, 0 evicts every copy.
    /// Alluxio answers a value below -1 with INTERNAL ([`Error::Server`]).
    pub async fn set_replication_max(&self, path: &str, max: i32) -> Result<(), Error> {
        let request = file::SetAttributePRequest {
            path: Some(path.to_owned()),
            options: Some(file::SetAttributePOptions { replication_max: Some(max) }),
        };
        self.master(Some(path), |service| {
            let request = request.clone();
            async move { FileSystemMasterClientServiceClient::new(service).set_attribute(request).await }
        })
        .await
        .map(|_| ())
    }

    /// A round trip to the RPC port of a block worker, over a connection that is kept. Limited by
    /// [`Config::connect_timeout`]: a worker that is slower than that is as good as silent.
    pub async fn ping_worker(&self, address: &WorkerAddress) -> Result<(), Error> {
        let ping = |connection: Arc<Connection>| async move {
            connection.version(ServiceType::BlockWorkerClientService).await
        };
        self.worker(address, self.inner.config.connect_timeout, None, ping).await.map(|_| ())
    }

    /// Jobs in these states; none given: all. Finished jobs stay in the list for a while; none survives a restart of
    /// the job master. Costs 9-70 ms for 1,000 jobs.
    pub async fn jobs(&self, statuses: &[JobStatus]) -> Result<Vec<Job>, Error> {
        Ok(self.list_jobs(statuses, false).await?.job_infos.into_iter().map(Job::from).collect())
    }

    /// Ids of the jobs in these states; none given: all.
    pub async fn job_ids(&self, statuses: &[JobStatus]) -> Result<Vec<i64>, Error> {
        Ok(self.list_jobs(statuses, true).await?.job_ids)
    }

    async fn list_jobs(
        &self,
        statuses: &[JobStatus],
        job_id_only: bool,
    ) -> Result<job::ListAllPResponse, Error> {
        let request = job::ListAllPRequest {
            options: Some(job::ListAllPOptions {
                status: statuses.iter().map(|status| job::Status::from(*status).into()).collect(),
                job_id_only: Some(job_id_only),
            }),
        };
        self.job_master(None, |mut client| {
            let request = request.clone();
            async move { client.list_all(request).await }
        })
        .await
    }

    /// Asks for the end of a job. Only children can be cancelled: the control id of a command is
    /// [`Error::NotFound`], as is a job that the job master has forgotten.
    pub async fn cancel_job(&self, id: i64) -> Result<(), Error> {
        let request = job::CancelPRequest { job_id: Some(id) };
        self.job_master(Some(&format!("job {id}")), |mut client| async move { client.cancel(request).await })
            .await
            .map(|_| ())
    }

    /// The child jobs of a command: none is told before its submission has ended ([`Error::NotFound`]), then all of
    /// them at once, also after the command has ended.
    pub async fn command_jobs(&self, job_control_id: i64) -> Result<Vec<CommandJob>, Error> {
        let request = job::GetCmdStatusDetailedRequest { job_control_id: Some(job_control_id) };
        let subject = format!("command {job_control_id}");
        let response =
            self.job_master(Some(&subject), |mut client| async move {
                client.get_cmd_status_detailed(request).await
            })
            .await?;
        let children = response.cmd_status_block.unwrap_or_default().job_status_block;
        Ok(children.into_iter().map(CommandJob::from).collect())
    }

    /// The job workers.
    pub async fn job_workers(&self) -> Result<Vec<JobWorker>, Error> {
        let request = job::GetAllWorkerHealthPRequest {};
        let response = self
            .job_master(None, |mut client| async move { client.get_all_worker_health(request).await })
            .await?;
        Ok(response.worker_healths.into_iter().map(JobWorker::from).collect())
    }

    async fn master<T, F>(&self, subject: Option<&str>, call: impl Fn(Service) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let call = |connection: Arc<Connection>| call(connection.service());
        self.inner.master.call(self.inner.config.call_timeout, subject, call).await
    }

    async fn job_master<T, F>(
        &self,
        subject: Option<&str>,
        call: impl Fn(JobMasterClientServiceClient<Service>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let call = |connection: Arc<Connection>| {
            let client = JobMasterClientServiceClient::new(connection.service());
            call(client.max_decoding_message_size(MAX_MESSAGE))
        };
        self.inner.job_master.call(self.inner.config.call_timeout, subject, call).await
    }

    /// A call to the worker at `address`, over a connection that is kept until it fails.
    pub(crate) async fn worker<T, F>(
        &self,
        address: &WorkerAddress,
        deadline: Duration,
        subject: Option<&str>,
        call: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let address = address.to_string();
        let kind = ServiceType::BlockWorkerClientService;
        let config = &self.inner.config;
        let worker = self
            .known_workers()
            .entry(address.clone())
            .or_insert_with(|| Arc::new(Servers::new(kind, vec![address.clone()], config.clone())))
            .clone();
        let result = worker.call(deadline, subject, call).await;
        if matches!(result, Err(Error::Unreachable { .. } | Error::DeadlineExceeded { .. })) {
            self.known_workers().remove(&address);
        }
        result
    }

    fn known_workers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Servers>>> {
        self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Client::master_info`] asks for: the rest of the answer grows with the cluster.
const MASTER_INFO: [meta::MasterInfoField; 4] = [
    meta::MasterInfoField::SafeMode,
    meta::MasterInfoField::StartTimeMs,
    meta::MasterInfoField::Version,
    meta::MasterInfoField::ClusterId,
];

fn missing(what: &str) -> Error {
    Error::Protocol { message: what.to_owned() }
}

/// All that [`Worker`] tells, of the workers that are not lost.
fn live_workers() -> block::GetWorkerReportPOptions {
    use block::WorkerInfoField::{
        Address, BuildVersion, Id, LastContactSec, StartTimeMs, State, WorkerCapacityBytes,
        WorkerCapacityBytesOnTiers, WorkerUsedBytes, WorkerUsedBytesOnTiers,
    };
    let fields = [
        Address,
        BuildVersion,
        Id,
        LastContactSec,
        StartTimeMs,
        State,
        WorkerCapacityBytes,
        WorkerUsedBytes,
        // Not used, but 2.9.3 fails with INTERNAL where they are not asked for.
        WorkerCapacityBytesOnTiers,
        WorkerUsedBytesOnTiers,
    ];
    block::GetWorkerReportPOptions {
        field_ranges: fields.map(Into::into).to_vec(),
        worker_range: Some(block::WorkerRange::Live.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::{Notify, oneshot};

    #[tokio::test]
    async fn a_call_that_must_not_be_cut_off_ends_without_its_caller() {
        let client = Client::new(Config::default());
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let call = {
            let (begun, go_on, ended) = (begun.clone(), go_on.clone(), ended.clone());
            async move {
                begun.notify_one();
                go_on.notified().await;
                ended.store(true, Ordering::Relaxed);
                Ok(())
            }
        };
        tokio::select! {
            _ = client.unbroken(call) => panic!("it waits to go on"),
            () = begun.notified() => {}
        }
        // Nobody waits for it any more.
        let (settled, is_settled) = oneshot::channel();
        tokio::spawn(async move {
            client.settled().await;
            settled.send(()).ok();
        });
        assert!(!ended.load(Ordering::Relaxed));
        go_on.notify_one();
        is_settled.await.unwrap();
        assert!(ended.load(Ordering::Relaxed), "it was cut off, or not waited for");
    }
}
