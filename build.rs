//! Compiles the contract with protox: no protoc needed, nothing is written outside `OUT_DIR`.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/preload/v1/preload.proto"], ["proto"])?;
    let bytes = descriptors.encode_to_vec();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("preload.bin"), bytes)?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::SmallBuffers")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
