//! What Nomad passes to the CNI plugin.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_cni::fuzz(data));
