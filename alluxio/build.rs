//! Compiles our subset of Alluxio's messages with protox: no protoc needed, nothing is written outside `OUT_DIR`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["sasl.proto", "version.proto", "file.proto", "block.proto", "meta.proto", "job.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_server(false).include_file("alluxio.rs").compile_fds(descriptors)?;
    Ok(())
}
