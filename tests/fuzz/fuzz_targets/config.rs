//! A sidecar's config and the policy in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_proto::config::fuzz(data));
