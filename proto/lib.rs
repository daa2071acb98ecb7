//! The contract of alluxio-preload: generated messages, client and server stubs of `preload.v1`, and a thin
//! client. No logic lives here; the comments in `proto/preload/v1/*.proto` are the manual.

/// Encoded `FileDescriptorSet` of the contract and everything it imports, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.bin"));

pub mod client;

mod codec;

/// `package preload.v1`.
pub mod v1 {
    #![allow(clippy::all, unreachable_pub, missing_debug_implementations, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/preload.v1.rs"));
}

#[cfg(test)]
mod tests {
    use prost::Message;

    #[test]
    fn descriptor_set_describes_the_service() {
        let set = prost_types::FileDescriptorSet::decode(super::FILE_DESCRIPTOR_SET).unwrap();
        let service =
            set.file.iter().flat_map(|f| &f.service).find(|s| s.name() == "PreloadService").unwrap();
        let methods: Vec<_> = service.method.iter().map(|m| m.name()).collect();
        assert_eq!(
            methods,
            [
                "StartLoad",
                "GetLoad",
                "WatchLoad",
                "ListLoads",
                "CancelLoad",
                "VerifyLoad",
                "ListFailures",
                "DeleteLoad"
            ]
        );
    }
}
