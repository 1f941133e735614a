//! The help of every command, and what is said of a command line that makes no
//! sense.

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
        &["config", "list", "-kind", "gateway"],
        &["config", "write", "-cas", "x.hcl"],
        &["tls", "cert", "create", "-id", "a"],
        &["apply"],
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
