//! The job service: what `distributedLoad` leaves behind when it is silent.

use crate::wire::job as wire;

/// State of a job or a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// A value this client does not know.
    #[default]
    Unknown,
    /// Waiting.
    Created,
    /// Cancelled.
    Canceled,
    /// Ended with an error.
    Failed,
    /// Running.
    Running,
    /// Ended well.
    Completed,
}

impl JobStatus {
    /// Canceled, Failed or Completed.
    pub fn is_finished(self) -> bool {
        matches!(self, JobStatus::Canceled | JobStatus::Failed | JobStatus::Completed)
    }
}

/// A job of the job service: a child of a `distributedLoad` is one file (`name` "Load").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: i64,
    /// Its kind: "Load", "Persist", "Migrate", "Replicate" ...
    pub name: String,
    /// Its state.
    pub status: JobStatus,
    /// Why it failed; empty else.
    pub error_message: String,
    /// Alluxio paths it works on; one for a child of `distributedLoad`.
    pub affected_paths: Vec<String>,
    /// Milliseconds since the epoch of its last change.
    pub last_updated_ms: i64,
}

/// A child job of one command, from its control id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandJob {
    /// Id of the job.
    pub id: i64,
    /// Its state; one that waits counts as [`JobStatus::Running`] here.
    pub status: JobStatus,
    /// The file it loads.
    pub file_path: String,
    /// The same once it has failed; empty else.
    pub failed_file_path: String,
}

/// A job worker as the job master sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobWorker {
    /// Its id.
    pub id: i64,
    /// Host name or address.
    pub hostname: String,
    /// Milliseconds since the epoch of its last health report, **by the job worker's own clock**: compare it with its
    /// own earlier value only. A dead job worker leaves the list after 60 s.
    pub last_updated_ms: i64,
    /// Threads for tasks.
    pub task_pool_size: u32,
    /// Tasks that run.
    pub active_tasks: u32,
    /// Tasks accepted and not ended.
    pub unfinished_tasks: u32,
}

impl From<JobStatus> for wire::Status {
    fn from(status: JobStatus) -> Self {
        match status {
            JobStatus::Unknown => wire::Status::Unknown,
            JobStatus::Created => wire::Status::Created,
            JobStatus::Canceled => wire::Status::Canceled,
            JobStatus::Failed => wire::Status::Failed,
            JobStatus::Running => wire::Status::Running,
            JobStatus::Completed => wire::Status::Completed,
        }
    }
}

impl From<wire::Status> for JobStatus {
    fn from(status: wire::Status) -> Self {
        match status {
            wire::Status::Unknown => JobStatus::Unknown,
            wire::Status::Created => JobStatus::Created,
            wire::Status::Canceled => JobStatus::Canceled,
            wire::Status::Failed => JobStatus::Failed,
            wire::Status::Running => JobStatus::Running,
            wire::Status::Completed => JobStatus::Completed,
        }
    }
}

impl From<wire::JobInfo> for Job {
    fn from(info: wire::JobInfo) -> Job {
        Job {
            status: info.status().into(),
            id: info.id.unwrap_or_default(),
            name: info.name.unwrap_or_default(),
            error_message: info.error_message.unwrap_or_default(),
            affected_paths: info.affected_paths,
            last_updated_ms: info.last_updated.unwrap_or_default(),
        }
    }
}

impl From<wire::JobStatusBlock> for CommandJob {
    fn from(info: wire::JobStatusBlock) -> CommandJob {
        CommandJob {
            status: info.job_status().into(),
            id: info.job_id.unwrap_or_default(),
            file_path: info.file_path.unwrap_or_default(),
            failed_file_path: info.file_path_failed.unwrap_or_default(),
        }
    }
}

impl From<wire::JobWorkerHealth> for JobWorker {
    fn from(health: wire::JobWorkerHealth) -> JobWorker {
        let count = |value: Option<i32>| value.unwrap_or_default().try_into().unwrap_or(0);
        JobWorker {
            task_pool_size: count(health.task_pool_size),
            active_tasks: count(health.num_active_tasks),
            unfinished_tasks: count(health.unfinished_tasks),
            id: health.worker_id.unwrap_or_default(),
            hostname: health.hostname.unwrap_or_default(),
            last_updated_ms: health.last_updated.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_wire_comes_back_as_itself() {
        for number in 0..=5 {
            let wire = wire::Status::try_from(number).unwrap();
            assert_eq!(wire::Status::from(JobStatus::from(wire)), wire);
        }
    }

    #[test]
    fn a_status_of_a_later_alluxio_is_unknown_and_not_finished() {
        let job = Job::from(wire::JobInfo { status: Some(77), ..Default::default() });
        assert_eq!(job.status, JobStatus::Unknown);
        assert!(!job.status.is_finished());
    }
}
