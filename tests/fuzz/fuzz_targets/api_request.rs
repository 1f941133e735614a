//! A request of the HTTP API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_server::fuzz::api_request(data));
