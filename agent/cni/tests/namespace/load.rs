//! That loading rules leaves what it should, whatever was there.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mesh_cni::Config;
use mesh_cni::rules::{self, Family};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};

use crate::world::{PREVIOUS, World, programs};

/// The table of one family, without what else may print itself.
fn table(world: &World, program: &str) -> Vec<String> {
    let text = world.alloc.program(&format!("{program} -w 20 -t nat -S"));
    text.lines()
        .filter(|line| line.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

/// `ADD` after `ADD`, and after something has happened to the rules, with the
/// programs in a folder.
fn repeats(world: &World, path: &str, list: [&str; 2]) {
    let config = world.config(json!({}));
    let add = || {
        let answer = world.plugin("ADD", Some(&config), path);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.stdout, format!("{PREVIOUS}\n"));
    };
    let tables = || list.map(|program| table(world, program));
    let check = || world.plugin("CHECK", Some(&config), path);

    let answer = check();
    assert_eq!(answer.code, 1, "nothing is there yet: {answer:?}");
    assert!(answer.stdout.contains("\"code\":101"), "{answer:?}");
    add();
    let once = tables();
    assert!(once.iter().all(|table| table.len() > 10), "{once:?}");
    add();
    assert_eq!(tables(), once);
    assert_eq!(check().code, 0);

    for program in list {
        for line in [
            // Half of what ADD does, and more than it does.
            "-D OUTPUT -j MESH_OUTPUT",
            "-F MESH_INBOUND",
            "-A MESH_OUTPUT -p udp -j RETURN",
            "-A PREROUTING -p tcp -j MESH_INBOUND",
            "-A PREROUTING -p tcp -j MESH_INBOUND",
        ] {
            world
                .alloc
                .program(&format!("{program} -w 20 -t nat {line}"));
        }
    }
    assert_eq!(check().code, 1);
    add();
    assert_eq!(tables(), once);

    // Whatever others have there stays, behind ours.
    for program in list {
        let rule = "-I OUTPUT 1 -p udp -j ACCEPT";
        world
            .alloc
            .program(&format!("{program} -w 20 -t nat {rule}"));
    }
    add();
    for table in tables() {
        let output: Vec<_> = table
            .iter()
            .filter(|line| line.starts_with("-A OUTPUT"))
            .collect();
        assert_eq!(
            output,
            ["-A OUTPUT -j MESH_OUTPUT", "-A OUTPUT -p udp -j ACCEPT"]
        );
    }

    // DEL comes without arguments, and takes nothing from what still runs.
    let before = tables();
    let answer = world.plugin("DEL", None, path);
    assert_eq!((answer.stdout.as_str(), answer.code), ("", 0));
    assert_eq!(tables(), before);
}

#[test]
fn add_again_needs_root() {
    let Some(world) = World::new() else { return };
    let path = std::env::var("PATH").unwrap();
    repeats(&world, &path, ["iptables", "ip6tables"]);
}

#[test]
fn add_again_in_the_older_tables_needs_root() {
    let older = Path::new("/usr/sbin/xtables-legacy-multi");
    let Some(world) = World::new() else { return };
    if !older.exists() || !world.alloc.works("iptables-legacy -t nat -S") {
        eprintln!("skipped: this host does not have the older tables");
        return;
    }
    let folder = programs(&[
        ("iptables", older),
        ("iptables-restore", older),
        ("ip6tables", older),
        ("ip6tables-restore", older),
    ]);
    let path = folder.path().to_str().unwrap();
    repeats(&world, path, ["iptables-legacy", "ip6tables-legacy"]);
}

#[test]
fn without_a_table_for_ipv6_needs_root() {
    let Some(world) = World::new() else { return };
    let path = |names: &[&str]| {
        let nothing = Path::new("/bin/false");
        let links: Vec<_> = names.iter().map(|name| (*name, nothing)).collect();
        let folder = programs(&links);
        let path = std::env::var("PATH").unwrap();
        (format!("{}:{path}", folder.path().display()), folder)
    };
    let config = world.config(json!({}));
    let (only_v4, _folder) = path(&["ip6tables"]);
    let answer = world.plugin("ADD", Some(&config), &only_v4);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer
            .log
            .unwrap()
            .contains("; IPv4 only, IPv6 passes by the mesh: /")
    );
    assert_eq!(rules::missing(&table(&world, "iptables").join("\n")), None);

    let (broken, _folder) = path(&["iptables-restore"]);
    let answer = world.plugin("ADD", Some(&config), &broken);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("\"code\":100"), "{answer:?}");

    // One that cannot look does not tear a live network down.
    let (blind, _folder) = path(&["iptables"]);
    assert_eq!(world.plugin("CHECK", Some(&config), &blind).code, 0);
}

#[test]
fn a_config_for_another_namespace_changes_nothing_needs_root() {
    let Some(world) = World::new() else { return };
    let config = world.config(json!({"NetNS": world.outside.path}));
    let path = std::env::var("PATH").unwrap();
    let answer = world.plugin("ADD", Some(&config), &path);
    assert!(answer.stdout.contains("but CNI_NETNS is"), "{answer:?}");
    for net in [&world.alloc, &world.outside] {
        assert!(!net.program("iptables -t nat -S").contains("MESH"));
    }
}

/// A config that Nomad might write.
fn configs() -> impl Strategy<Value = Value> {
    let ports = || prop::collection::vec((1..=u16::MAX).prop_map(|port| port.to_string()), 0..8);
    let uids = prop::collection::vec((0..u32::MAX).prop_map(|uid| uid.to_string()), 0..4);
    let v4 = (any::<std::net::Ipv4Addr>(), 0..=32u8).prop_map(|(ip, bits)| format!("{ip}/{bits}"));
    let v6 = (any::<std::net::Ipv6Addr>(), 0..=128u8).prop_map(|(ip, bits)| format!("{ip}/{bits}"));
    let cidrs = prop::collection::vec(prop_oneof![v4, v6], 0..8);
    let numbers = (0..u32::MAX, 1..15000u16, any::<bool>());
    (numbers, ports(), ports(), cidrs, uids).prop_map(
        |((uid, inbound, dns), inside, outside, cidrs, uids)| {
            json!({
                "ConsulDNSIP": if dns { "::1" } else { "" },
                "ConsulDNSPort": if dns { 53 } else { 0 },
                "ProxyUserID": uid.to_string(),
                "ProxyInboundPort": inbound,
                "ProxyOutboundPort": 15001,
                "ExcludeInboundPorts": inside,
                "ExcludeOutboundPorts": outside,
                "ExcludeOutboundCIDRs": cidrs,
                "ExcludeUIDs": uids,
                "NetNS": "/n",
            })
        },
    )
}

#[test]
fn rules_of_any_config_are_rules_needs_root() {
    let Some(world) = World::new() else { return };
    let runs = Runs {
        cases: 32,
        failure_persistence: None,
        ..Runs::default()
    };
    TestRunner::new(runs)
        .run(&configs(), |config| {
            let config = Config::parse(&config.to_string(), "/n").expect("it is valid");
            for (family, program) in [
                (Family::V4, "iptables-restore"),
                (Family::V6, "ip6tables-restore"),
            ] {
                let text = rules::restore(&config, family, "");
                let rules = text.clone();
                let output = world.alloc.run(move || {
                    let mut child = Command::new(program)
                        .args(["-w", "20", "--noflush", "--test"])
                        .stdin(Stdio::piped())
                        .stderr(Stdio::piped())
                        .spawn()?;
                    let mut stdin = child.stdin.take().expect("it is piped");
                    stdin.write_all(rules.as_bytes())?;
                    drop(stdin);
                    child.wait_with_output()
                });
                let output = output.expect("it runs");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                prop_assert!(output.status.success(), "{text}{said}");
            }
            Ok(())
        })
        .unwrap();
}
