//! mesh/1, from the other side.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_mux::fuzz::fuzz_frames(data));
