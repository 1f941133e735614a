//! What logs in at an agent: Nomad's signed identities, and their claims.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_agent::fuzz::workload_identity(data));
