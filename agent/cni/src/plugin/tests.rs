use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const STDIN: &str = r#"{"cniVersion":"0.4.0","name":"nomad","type":"consul-cni",
    "log_level":"debug","prevResult":{"cniVersion":"0.4.0","z":1,"a":[1.50,"\u0041"]}}"#;

fn ask(variables: &[(&str, &str)], stdin: &str) -> Answer {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    run(&env, &mut stdin.as_bytes())
}

fn refusal(answer: &Answer) -> (u64, String, String) {
    assert_eq!(answer.code, 1, "{answer:?}");
    let error: Value = serde_json::from_str(&answer.stdout).unwrap();
    let text = |key: &str| error[key].as_str().unwrap().to_owned();
    (
        error["code"].as_u64().unwrap(),
        text("msg"),
        text("cniVersion"),
    )
}

/// As Nomad finds the version: the first word that is one.
#[test]
fn the_probe_reads_a_version() {
    let answer = ask(&[], "");
    assert_eq!((answer.code, answer.log), (0, None));
    let version = answer.stdout.split_whitespace().find_map(|word| {
        let parts: Vec<_> = word.strip_prefix('v').unwrap_or(word).split('.').collect();
        let numbers = parts.iter().map(|part| part.parse().ok());
        numbers.collect::<Option<Vec<u32>>>()
    });
    assert!(version.unwrap() >= vec![1, 4, 2]);
}

#[test]
fn version_names_the_protocols() {
    let answer = ask(&[("CNI_COMMAND", "VERSION")], "");
    assert_eq!(answer.code, 0);
    insta::assert_snapshot!(answer.stdout, @r#"{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#);
}

#[test]
fn what_needs_nothing_succeeds_with_nothing() {
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let answer = ask(&[("CNI_COMMAND", command)], "");
        assert_eq!((answer.stdout.as_str(), answer.code), ("", 0), "{command}");
        assert_eq!(answer.log.unwrap().lines().count(), 1);
    }
}

#[test]
fn a_command_that_is_none_is_refused() {
    let (code, says, _) = refusal(&ask(&[("CNI_COMMAND", "add\n")], STDIN));
    assert_eq!(code, 4);
    assert!(says.contains(r#"CNI_COMMAND is "add\n""#), "{says}");
}

#[test]
fn add_says_what_is_wrong() {
    let netns = "/nowhere/netns";
    let config = r#"CONSUL_IPTABLES_CONFIG={"ProxyUserID":"101","ProxyInboundPort":20000,"NetNS":"/nowhere/netns"}"#;
    let all = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "5f0a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", netns),
        ("CNI_ARGS", config),
    ];
    let without =
        |name: &str| -> Vec<_> { all.iter().copied().filter(|pair| pair.0 != name).collect() };
    let long = " ".repeat(usize::try_from(MAX_STDIN_BYTES).unwrap() + 1);
    let unknown = STDIN.replace("\"0.4.0\",\"name\"", "\"9.0.0\",\"name\"");
    for (variables, stdin, code, says) in [
        (all.to_vec(), "", 6, "not a network config: EOF"),
        (all.to_vec(), "[1", 6, "not a network config"),
        (all.to_vec(), long.as_str(), 5, "more than 1048576 bytes"),
        (all.to_vec(), unknown.as_str(), 1, "\"9.0.0\" is not known"),
        (
            all.to_vec(),
            r#"{"cniVersion":"1.0.0"}"#,
            7,
            "no prevResult",
        ),
        (all.to_vec(), r#"{"prevResult":null}"#, 7, "no prevResult"),
        (without("CNI_NETNS"), STDIN, 4, "CNI_NETNS is not set"),
        (
            without("CNI_CONTAINERID"),
            STDIN,
            4,
            "CNI_CONTAINERID is not set",
        ),
        (without("CNI_IFNAME"), STDIN, 4, "CNI_IFNAME is not set"),
        (
            without("CNI_ARGS"),
            STDIN,
            4,
            "CONSUL_IPTABLES_CONFIG: not there",
        ),
        (
            all.to_vec(),
            STDIN,
            4,
            "CNI_NETNS \"/nowhere/netns\": No such file",
        ),
    ] {
        let answer = ask(&variables, stdin);
        let (is, words, _) = refusal(&answer);
        assert_eq!(is, code, "{words}");
        assert!(words.contains(says), "{words}");
        assert_eq!(answer.log.unwrap().lines().count(), 1);
    }
    let (_, _, version) = refusal(&ask(&all, STDIN));
    assert_eq!(version, "0.4.0", "an error speaks the config's version");
}
