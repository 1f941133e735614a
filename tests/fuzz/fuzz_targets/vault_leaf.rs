//! What Vault signed, as a server judges it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_ca::fuzz::vault_leaf(data));
