//! What Nomad sends to the agent's API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_consul::fuzz(data));
