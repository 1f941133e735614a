//! HTTP/2, from either side, from its first byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_h2::fuzz::fuzz_frames(data));
