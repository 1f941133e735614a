//! Header blocks of HTTP/2.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_h2::fuzz::fuzz_hpack(data));
