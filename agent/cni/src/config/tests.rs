use serde_json::{Value, json};

use super::*;

const NETNS: &str = "/var/run/netns/5f0a";

/// As Nomad writes it.
fn sent() -> Value {
    json!({
        "ConsulDNSIP": "192.168.1.117",
        "ConsulDNSPort": 8600,
        "ProxyUserID": "101",
        "ProxyInboundPort": 9999,
        "ProxyOutboundPort": 15001,
        "ExcludeInboundPorts": ["9002"],
        "ExcludeOutboundPorts": null,
        "ExcludeOutboundCIDRs": null,
        "ExcludeUIDs": null,
        "NetNS": NETNS,
        "IptablesProvider": null,
    })
}

fn with(key: &str, value: Value) -> Result<Config, Fault> {
    let mut sent = sent();
    sent[key] = value;
    Config::parse(&sent.to_string(), NETNS)
}

fn ports(ports: &[u16]) -> BTreeSet<NonZeroU16> {
    ports.iter().copied().filter_map(NonZeroU16::new).collect()
}

#[test]
fn what_nomad_writes_is_taken() {
    let config = Config::parse(&sent().to_string(), NETNS).unwrap();
    assert_eq!(
        config,
        Config {
            inbound: NonZeroU16::new(9999).unwrap(),
            outbound: NonZeroU16::new(15001).unwrap(),
            proxy_uid: 101,
            dns: true,
            exclude_inbound: ports(&[9002]),
            exclude_outbound: BTreeSet::new(),
            exclude_cidrs: BTreeSet::new(),
            exclude_uids: BTreeSet::new(),
            notes: Vec::new(),
        }
    );
}

#[test]
fn lists_are_taken() {
    let mut sent = sent();
    sent["ExcludeOutboundPorts"] = json!(["5432", "443", "443"]);
    sent["ExcludeOutboundCIDRs"] = json!(["10.0.0.9/8", "fd00::/8"]);
    sent["ExcludeUIDs"] = json!(["0", "1000"]);
    let config = Config::parse(&sent.to_string(), NETNS).unwrap();
    assert_eq!(config.exclude_outbound, ports(&[443, 5432]));
    let cidrs: Vec<_> = config
        .exclude_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(cidrs, ["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(config.exclude_uids, BTreeSet::from([0, 1000]));
}

#[test]
fn without_an_address_there_is_no_dns() {
    let mut sent = sent();
    sent["ConsulDNSIP"] = json!("");
    sent["ConsulDNSPort"] = json!(0);
    assert!(!Config::parse(&sent.to_string(), NETNS).unwrap().dns);
}

#[test]
fn without_an_outbound_port_it_is_the_usual_one() {
    let outbound = with("ProxyOutboundPort", json!(0)).unwrap().outbound;
    assert_eq!(outbound.get(), OUTBOUND_PORT);
}

#[test]
fn a_static_port_without_to_is_passed_over_and_said() {
    let config = with("ExcludeInboundPorts", json!(["-1", "0", "9002"])).unwrap();
    assert_eq!(config.exclude_inbound, ports(&[9002]));
    assert_eq!(config.notes.len(), 1);
}

#[test]
fn a_key_of_a_newer_nomad_is_let_be_and_said() {
    let config = with("DualStack", json!({"a": [1]})).unwrap();
    assert!(config.notes[0].starts_with("\"DualStack\" is not known"));
}

#[test]
fn what_is_wrong_is_named() {
    let many = json!(vec!["1"; MAX_ENTRIES + 1]);
    for (key, value, says) in [
        ("ProxyInboundPort", json!(0), "take `port` out"),
        ("ProxyInboundPort", Value::Null, "ProxyInboundPort is 0"),
        (
            "ProxyInboundPort",
            json!(65536),
            "ProxyInboundPort is 65536",
        ),
        ("ProxyInboundPort", json!(-1), "ProxyInboundPort is -1"),
        ("ProxyInboundPort", json!("80"), "invalid type"),
        (
            "ProxyInboundPort",
            json!(15001),
            "takes its application's calls",
        ),
        ("ProxyInboundPort", json!(15053), "answers DNS"),
        ("ProxyOutboundPort", json!(15002), "listens on 15001 only"),
        ("ProxyOutboundPort", json!(15053), "`outbound_port`"),
        (
            "ProxyOutboundPort",
            json!(70000),
            "ProxyOutboundPort is 70000",
        ),
        ("ProxyOutboundPort", json!(-1), "ProxyOutboundPort is -1"),
        ("ProxyUserID", json!(""), "ProxyUserID is \"\""),
        ("ProxyUserID", json!("envoy"), "default_uid"),
        ("ProxyUserID", json!("-1"), "ProxyUserID"),
        ("ProxyUserID", json!("4294967295"), "ProxyUserID"),
        ("ConsulDNSIP", json!("dns.example"), "not an address"),
        ("ConsulDNSIP", json!(""), "both or none"),
        ("ConsulDNSPort", json!(0), "both or none"),
        ("ConsulDNSPort", json!(65536), "ConsulDNSPort is 65536"),
        (
            "ExcludeInboundPorts",
            json!(["http"]),
            "ExcludeInboundPorts",
        ),
        ("ExcludeOutboundPorts", json!(["0"]), "ExcludeOutboundPorts"),
        (
            "ExcludeOutboundPorts",
            json!(["1:9"]),
            "ExcludeOutboundPorts",
        ),
        ("ExcludeOutboundPorts", json!(["22 -j ACCEPT"]), "\"22 -j"),
        ("ExcludeOutboundPorts", many, "257 entries"),
        ("ExcludeOutboundCIDRs", json!(["10.0.0.1"]), "prefix"),
        ("ExcludeOutboundCIDRs", json!(["::/0\nCOMMIT"]), "\\nCOMMIT"),
        ("ExcludeUIDs", json!(["root"]), "ExcludeUIDs"),
        ("ExcludeUIDs", json!([0]), "invalid type"),
        ("NetNS", json!("/var/run/netns/other"), "but CNI_NETNS is"),
        ("NetNS", Value::Null, "but CNI_NETNS is"),
    ] {
        let fault = with(key, value.clone()).expect_err(&format!("{key}={value}"));
        assert_eq!(fault.code(), 4);
        assert!(fault.to_string().contains(says), "{key}={value}: {fault}");
    }
}

#[test]
fn what_is_too_long_or_no_json_is_refused() {
    let long = format!("{}{}", sent(), " ".repeat(MAX_CONFIG_BYTES));
    let quoting = format!("{{\"ExcludeUIDs\":\"{}\"}}", "x".repeat(1000));
    for (text, says) in [
        (long.as_str(), "at most 32768"),
        ("", "EOF"),
        (quoting.as_str(), "xxx; Nomad writes it"),
        ("[]", "invalid"),
        ("null", "invalid type"),
        (r#"{"NetNS":"a","NetNS":"b"}"#, "duplicate field"),
    ] {
        let fault = Config::parse(text, NETNS).unwrap_err();
        assert!(fault.to_string().contains(says), "{text:.40}: {fault}");
    }
}
