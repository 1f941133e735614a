use serde_json::json;

use super::*;

fn config(changes: &[(&str, serde_json::Value)]) -> Config {
    let mut sent = json!({
        "ConsulDNSIP": "10.0.0.1",
        "ConsulDNSPort": 8600,
        "ProxyUserID": "101",
        "ProxyInboundPort": 20000,
        "ProxyOutboundPort": 15001,
        "NetNS": "/n",
    });
    for (key, value) in changes {
        sent[*key] = value.clone();
    }
    Config::parse(&sent.to_string(), "/n").unwrap()
}

#[test]
fn the_least() {
    insta::assert_snapshot!(restore(&config(&[]), Family::V4, ""));
}

#[test]
fn everything() {
    let config = config(&[
        ("ExcludeInboundPorts", json!(["9002", "22"])),
        ("ExcludeOutboundPorts", json!(["5432"])),
        ("ExcludeOutboundCIDRs", json!(["10.1.0.0/16", "fd00::/8"])),
        ("ExcludeUIDs", json!(["1000", "33"])),
    ]);
    insta::assert_snapshot!("everything_v4", restore(&config, Family::V4, ""));
    insta::assert_snapshot!("everything_v6", restore(&config, Family::V6, ""));
}

#[test]
fn beside_root_only_the_mark_passes() {
    let text = restore(&config(&[("ProxyUserID", json!("0"))]), Family::V4, "");
    assert!(text.contains("-m mark --mark 0x6d65 -j RETURN"));
    assert!(!text.contains("owner"), "{text}");
}

#[test]
fn without_dns_port_53_is_a_port_like_others() {
    let none = [("ConsulDNSIP", json!("")), ("ConsulDNSPort", json!(0))];
    let text = restore(&config(&none), Family::V6, "");
    assert!(!text.contains("15053"), "{text}");
}

#[test]
fn jumps_of_before_are_taken_out_as_often_as_they_stand() {
    let now = "-P OUTPUT ACCEPT\n-N MESH_OUTPUT\n-N MESH_OUTPUT_OLD\n\
               -A OUTPUT -j MESH_OUTPUT\n-A OUTPUT -j MESH_OUTPUT_OLD\n\
               -A OUTPUT -d 10.0.0.1/32 -j MESH_OUTPUT\n-A OUTPUT -j MESH_OUTPUT\n";
    let text = restore(&config(&[]), Family::V4, now);
    assert_eq!(text.matches("-D OUTPUT -j MESH_OUTPUT\n").count(), 2);
    assert_eq!(text.matches("-D ").count(), 2);
    assert_eq!(text.matches("-I ").count(), 2);
}

#[test]
fn what_is_missing_is_named() {
    let rules = "-A MESH_OUTPUT -j RETURN\n-A MESH_INBOUND -j RETURN\n";
    let out = "-A OUTPUT -j MESH_OUTPUT\n";
    let inbound = "-A PREROUTING -p tcp -j MESH_INBOUND\n";
    assert_eq!(missing(&[rules, out, inbound].concat()), None);
    for (now, says) in [
        (
            "-N MESH_OUTPUT\n".to_owned(),
            "the chain MESH_OUTPUT is gone or empty",
        ),
        (
            [rules, inbound].concat(),
            "OUTPUT does not jump to MESH_OUTPUT",
        ),
        (
            [rules, out].concat(),
            "PREROUTING does not jump to MESH_INBOUND",
        ),
    ] {
        assert_eq!(missing(&now).as_deref(), Some(says));
    }
}
