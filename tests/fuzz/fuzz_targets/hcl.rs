//! Files of entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_model::fuzz::hcl(data));
