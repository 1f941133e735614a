//! What an agent sends to a proxy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_proxy::fuzz::to_proxy(data));
