//! Fuzz targets: functions that take any bytes, and panic only where this crate
//! is wrong. A test replays the corpus, and cargo-fuzz can drive them.

use crate::validate::references;
use crate::{Entry, config, consul, hcl, instance, normalize_path, render};

/// Files of entries: what is read is written and read again to the same.
///
/// # Panics
///
/// If it is not.
pub fn hcl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match hcl::parse_entries("fuzz.hcl", text) {
        Ok(entries) => {
            let entries: Vec<Entry> = entries.into_iter().map(|entry| entry.value).collect();
            for entry in &entries {
                let _ = references(entry);
            }
            let again = render::render_all(&entries);
            let again = hcl::parse_entries("again.hcl", &again);
            let again = again.map(|all| all.into_iter().map(|entry| entry.value).collect());
            assert_eq!(again, Ok(entries));
        }
        Err(wrong) => {
            assert!(!wrong.is_empty());
            let _ = (wrong.to_string(), wrong.excerpts());
        }
    }
    let _ = normalize_path(text);
}

/// An agent's files, and both configurations.
///
/// # Panics
///
/// If a file is refused and nothing is said of it.
pub fn instance(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(wrong) = instance::parse_instances("fuzz.hcl", text) {
        assert!(!wrong.is_empty());
        let _ = wrong.excerpts();
    }
    let _ = config::ServerConfig::parse(&[("a.hcl", text), ("b.hcl", text)]);
    let _ = config::AgentConfig::parse(&[("a.hcl", text), ("b.hcl", text)]);
}

/// Consul's config entries: what is read, is read again from its raw form.
///
/// # Panics
///
/// If it is not.
pub fn config_entry(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = consul::is_config_entry(text);
    match consul::parse_config_entry("fuzz.hcl", text) {
        Ok(entry) => {
            let again = consul::from_json(&entry.raw);
            assert_eq!(again.as_ref(), Ok(&entry));
            let _ = consul::compile(&[entry.clone(), entry]);
        }
        Err(wrong) => {
            assert!(!wrong.is_empty());
            let _ = wrong.excerpts();
        }
    }
}
