//! The state's commands, as the log has them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mesh_state::fuzz::command(data);
});
