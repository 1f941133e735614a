//! Chunked bodies of HTTP/1.1.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_proxy::fuzz::h1_body(data));
