//! Certificate signing requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_tls::csr::fuzz(data));
