//! Bytes from outside: whatever they are, nothing panics, and no rule has a
//! character in it that could end it.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use serde_json::json;

#[test]
fn the_corpus_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        mesh_cni::fuzz(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{count} files");
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,64}", list in ".{0,32}", number: i64) {
        mesh_cni::fuzz(text.as_bytes());
        mesh_cni::fuzz(format!("CONSUL_IPTABLES_CONFIG={text}").as_bytes());
        let config = json!({
            "ProxyUserID": list,
            "ProxyInboundPort": number,
            "ExcludeOutboundCIDRs": [list],
            "NetNS": "/var/run/netns/a",
        });
        mesh_cni::fuzz(config.to_string().as_bytes());
    }

    /// One entry of each list is anything at all: the config is refused, or the
    /// entry is what it should be.
    #[test]
    fn any_entry_is_parsed_or_refused(entry in "[0-9a-f:./ \\n-]{0,20}", key in 0..4usize) {
        let keys = [
            "ExcludeInboundPorts",
            "ExcludeOutboundPorts",
            "ExcludeOutboundCIDRs",
            "ExcludeUIDs",
        ];
        let mut config = json!({
            "ProxyUserID": "101",
            "ProxyInboundPort": 20000,
            "NetNS": "/var/run/netns/a",
        });
        config[keys[key]] = json!([entry]);
        mesh_cni::fuzz(config.to_string().as_bytes());
    }
}
