//! What a proxy sends to an agent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_agent::fuzz::from_proxy(data));
