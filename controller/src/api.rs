//! The resources that this program reads and writes. Plain data with their schemas; no behaviour.

#![expect(clippy::duplicated_attributes, reason = "the columns of a table look alike")]
#![expect(unreachable_pub, reason = "KubeSchema makes a hidden copy of each struct")]

mod alluxio_runtime;
mod preload;

pub use alluxio_runtime::{
    AlluxioRuntime, AlluxioRuntimeSpec, AlluxioRuntimeStatus, Data, MirroredStatus, PreloadWish, annotation,
};
pub use preload::{
    Engine, FailedFile, Failures, Phase, Preload, PreloadSpec, PreloadStatus, Progress, RuntimeKind,
    RuntimeRef, Submission, condition,
};

/// Absolute Alluxio path; the rules of the sidecar, as the API server can check them.
const MAX_PATH: u32 = 4096;
