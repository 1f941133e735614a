//! The help of every command, and what is said of a command line that makes no
//! sense.

use std::collections::{BTreeMap, BTreeSet};

use super::{Transcript, assert_fits, fake::Fake};
use crate::args::root;

/// What `-h` prints; where `-help` explains more, that too.
fn walk(command: &clap::Command, path: &str, out: &mut String) {
    let help = command.clone().render_help();
    out.push_str(&format!("======== {path}\n{help}\n"));
    if let Some(long) = command.get_long_about() {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let more = long.to_string().replacen(&about, "", 1);
        out.push_str(&format!(
            "---- -help:\n{}\n\n",
            more.trim_start_matches(['.', '\n'])
        ));
    }
    for inner in command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
    {
        walk(inner, &format!("{path} {}", inner.get_name()), out);
    }
}

/// Every command says what it does.
fn assert_described(command: &clap::Command) {
    for inner in command.get_subcommands() {
        assert!(inner.get_about().is_some(), "{}", inner.get_name());
        assert_described(inner);
    }
}

#[test]
fn help_of_every_command() {
    let mut root = root();
    root.build();
    assert_described(&root);
    let mut text = String::new();
    walk(&root, "meshctl", &mut text);
    assert_fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn the_first_help_names_every_command() {
    let mut root = root();
    let help = root.render_help().to_string();
    for command in root.get_subcommands() {
        let line = format!("\n  {} ", command.get_name());
        assert!(help.contains(&line), "{}", command.get_name());
    }
}

/// Flags that the reference says once, for all commands that ask a server.
const COMMON: [&str; 12] = [
    "http-addr",
    "ca-file",
    "client-cert",
    "client-key",
    "output",
    "json",
    "stale",
    "consistent",
    "namespace",
    "owner",
    "force",
    "wait",
];

/// The commands that the reference names, each with the flags that stand with
/// it: in the code of its tables, and in the line that a section of a command
/// begins with.
fn documented(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    let mut begins = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
            begins = true;
            continue;
        }
        let cell = match line.strip_prefix("| ") {
            // A `|` within code is written `\|`.
            Some(row) => {
                let row = row.replace("\\|", "\u{0}");
                row.split('|').next().unwrap_or_default().to_owned()
            }
            None if begins && line.starts_with('`') => line.to_owned(),
            None => continue,
        };
        begins = false;
        for code in cell.split('`').skip(1).step_by(2) {
            let alone = command(code);
            let path = match command(&format!("{section} {code}")) {
                within if within.contains(' ') => within,
                _ => alone,
            };
            if !path.is_empty() {
                all.entry(path).or_default().extend(flags(code));
            }
        }
    }
    all
}

/// The command that a line begins with, as far as it is one.
fn command(line: &str) -> String {
    let root = root();
    let mut at = &root;
    let mut path = Vec::new();
    for word in line.split_whitespace() {
        let Some(inner) = at.find_subcommand(word) else {
            break;
        };
        path.push(word);
        at = inner;
    }
    path.join(" ")
}

/// Each `-flag` of a line.
fn flags(line: &str) -> BTreeSet<String> {
    let words = line.split(|c: char| c.is_whitespace() || "[]|\u{0}".contains(c));
    let flags = words.filter_map(|word| {
        let name = word.strip_prefix('-')?;
        let name: String = name
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        (!name.is_empty()).then_some(name)
    });
    flags.collect()
}

/// Every command that does something, with its flags by their long names.
fn known(command: &clap::Command, path: &str, all: &mut BTreeMap<String, BTreeSet<String>>) {
    let inner: Vec<_> = command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
        .collect();
    if inner.is_empty() {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let names = flags.filter_map(|arg| arg.get_long().map(str::to_owned));
        let own = |name: &String| name != "help" && name != "version";
        all.insert(path.to_owned(), names.filter(own).collect());
    }
    for one in inner {
        let path = format!("{path} {}", one.get_name());
        known(one, path.trim(), all);
    }
}

#[test]
fn the_reference_has_every_command_and_flag_and_no_other() {
    let text = include_str!("../../../../docs/reference/cli.md");
    let written = documented(text);
    let mut there = BTreeMap::new();
    known(&root(), "", &mut there);
    let mut wrong = Vec::new();
    let full = |flag: &str| match flag {
        "f" => "file".to_owned(),
        "o" => "output".to_owned(),
        flag => flag.to_owned(),
    };
    for (command, flags) in &written {
        let Some(known) = there.get(command) else {
            wrong.push(format!("`{command}` is no command that does something"));
            continue;
        };
        for flag in flags.iter().filter(|flag| !known.contains(&full(flag))) {
            wrong.push(format!("`{command}` does not take -{flag}"));
        }
    }
    for (command, flags) in &there {
        let Some(written) = written.get(command) else {
            wrong.push(format!("`{command}` is missing"));
            continue;
        };
        let written: BTreeSet<String> = written.iter().map(|flag| full(flag)).collect();
        for flag in flags.difference(&written) {
            let elsewhere = COMMON.contains(&flag.as_str());
            if !elsewhere {
                wrong.push(format!("-{flag} of `{command}` is missing"));
            }
        }
    }
    assert!(wrong.is_empty(), "cli.md:\n  {}", wrong.join("\n  "));
}

#[test]
fn clap_finds_no_fault() {
    root().debug_assert();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    for line in [
        &["intenton", "list"][..],
        &["intention", "create", "-alow", "a", "b"],
        &["intention", "create", "-allow", "-deny", "a", "b"],
        &["intention", "create", "-allow", "a"],
        &["intention", "create", "-meta", "x", "a", "b"],
        &["intention", "check", "a"],
        &["intention", "check", "a", "b", "-method", "GET"],
        &["intention", "check", "a/b/c", "b"],
        &["intention", "match", "-sorce", "a"],
        &["intention", "list", "-o", "yaml"],
        &["config", "read", "-kind", "service"],
        &["config", "list", "-kind", "gate"],
        &["config", "write", "-cas", "x.hcl"],
        &["tls", "cert", "create", "-id", "a"],
        &["apply"],
        &["apply", "-f", "x", "-owner", "a b"],
        &["intention", "create", "-owner", "", "a", "b"],
        &["intention", "create", "-wait", "5s", "a", "b"],
        &["intention", "delete", "-wait", "5s", "a", "b"],
        &["config", "write", "-wait", "1m", "x.hcl"],
        &[
            "config",
            "read",
            "-kind",
            "proxy-defaults",
            "-name",
            "global",
        ],
        &["ca", "status", "-stale"],
        &["status", "-http-addr", "ftp://x"],
        &["status", "-http-addr", "https://127.0.0.1:1"],
        &[
            "status",
            "-client-cert",
            "a",
            "-http-addr",
            "https://127.0.0.1:1",
            "-ca-file",
            "b",
        ],
    ] {
        all.run(&fake, line).await;
    }
    insta::assert_snapshot!(all.0);
}

#[test]
fn no_color_turns_colours_off() {
    let set = |text: &str| Some(text.to_owned());
    assert!(crate::colours(true, None));
    assert!(crate::colours(true, set("")));
    assert!(!crate::colours(true, set("1")));
    assert!(!crate::colours(true, set("0")));
    assert!(!crate::colours(false, None));
}

#[tokio::test]
async fn without_a_command_there_is_help() {
    let fake = Fake::start().await;
    let ran = super::run(&fake, &[], None).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("Usage: meshctl COMMAND"), "{}", ran.out);
    for line in [&["version"][..], &["-version"], &["--version"], &["-v"]] {
        let ran = super::run(&fake, line, None).await;
        assert_eq!(
            ran.out,
            concat!("meshctl v", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
    for line in [
        &["-h"][..],
        &["-help"],
        &["help", "intention"],
        &["intention", "create", "-h"],
    ] {
        assert_eq!(super::run(&fake, line, None).await.code, 0, "{line:?}");
    }
}

#[tokio::test]
async fn completions_are_scripts() {
    let fake = Fake::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let ran = super::run(&fake, &["completion", shell], None).await;
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("intention"), "{shell}");
    }
}
