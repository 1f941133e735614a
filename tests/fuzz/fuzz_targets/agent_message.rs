//! What an agent sends to a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_server::fuzz::agent_message(data));
