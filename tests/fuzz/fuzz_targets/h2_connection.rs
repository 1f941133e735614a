//! A connection of HTTP/2 that is begun, with an application on it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_h2::fuzz::fuzz_connection(data));
