//! The job service: what `distributedLoad` leaves behind when it is silent.

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
    /// Alluxio paths it works on.
    pub affected_paths: Vec<String>,
    /// Milliseconds since the epoch of its last change.
    pub last_updated_ms: i64,
}

/// A child job of one command, from its control id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandJob {
    /// Id of the job.
    pub id: i64,
    /// Its state.
    pub status: JobStatus,
    /// The file, or files, it loads.
    pub file_path: String,
    /// Those of them that failed; empty else.
    pub failed_file_path: String,
}

/// A job worker as the job master sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobWorker {
    /// Its id.
    pub id: i64,
    /// Host name or address.
    pub hostname: String,
    /// Milliseconds since the epoch of its last health report.
    pub last_updated_ms: i64,
    /// Threads for tasks.
    pub task_pool_size: u32,
    /// Tasks that run.
    pub active_tasks: u32,
    /// Tasks accepted and not ended.
    pub unfinished_tasks: u32,
}
