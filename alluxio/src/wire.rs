//! Generated messages and client stubs of `proto/*.proto`. No logic.

#![allow(clippy::all, unreachable_pub, missing_debug_implementations, dead_code, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/alluxio.rs"));

pub(crate) use alluxio::grpc::*;
