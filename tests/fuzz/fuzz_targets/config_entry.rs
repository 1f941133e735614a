//! Consul's config entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_model::fuzz::config_entry(data));
