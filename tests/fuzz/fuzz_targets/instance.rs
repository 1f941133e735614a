//! Instance files and configurations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_model::fuzz::instance(data));
