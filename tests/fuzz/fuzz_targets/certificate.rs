//! Certificates: what a peer shows, what a CA gave.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_tls::fuzz_certificate(data));
