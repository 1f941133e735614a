//! What an application asks the sidecar, and what others answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_dns::fuzz(data));
