//! A sidecar's bootstrap.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_proto::bootstrap::fuzz(data));
