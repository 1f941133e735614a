//! Flags with one dash or two, as Nomad's and Consul's users type them.
//!
//! clap knows `--allow`; here `-allow` becomes that, before clap sees it. To
//! know what is a flag and what is the value of one (`-description -urgent-`),
//! the arguments are walked along clap's own tree of commands: what follows a
//! flag that takes a value is left alone, and so is everything after `--` and
//! every flag of one letter. Go's `-stale=true` and `-stale=false` are taken
//! for flags without a value.

use clap::{Arg, ArgAction, Command};

/// The arguments as clap wants them. `arguments` has the program's name first;
/// `root` is what clap will parse them with.
pub(crate) fn normalise(
    root: &Command,
    arguments: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let mut root = root.clone();
    root.build();
    let mut command = &root;
    let mut out = Vec::new();
    let mut rest = arguments.into_iter();
    out.extend(rest.next());
    while let Some(argument) = rest.next() {
        if argument == "--" {
            out.push(argument);
            out.extend(rest);
            break;
        }
        let Some((name, value)) = flag(&argument) else {
            if let Some(inner) = command.find_subcommand(&argument) {
                command = inner;
            }
            out.push(argument);
            continue;
        };
        let known = find(command, name);
        match (known, value) {
            (Some(known), Some("true")) if is_switch(known) => out.push(dashed(name, None)),
            (Some(known), Some("false")) if is_switch(known) => {}
            _ => out.push(dashed(name, value)),
        }
        if value.is_none()
            && let Some(known) = known
            && wants_next(known)
            && let Some(next) = rest.next()
        {
            // Joined, so that clap takes it for a value whatever it begins with.
            match (next.starts_with('-') && next != "-", out.pop()) {
                (true, Some(flag)) => out.push(format!("{flag}={next}")),
                (_, flag) => {
                    out.extend(flag);
                    out.push(next);
                }
            }
        }
    }
    out
}

/// The name of a flag and what stands after its `=`.
fn flag(argument: &str) -> Option<(&str, Option<&str>)> {
    let name = argument
        .strip_prefix("--")
        .or_else(|| argument.strip_prefix('-'))?;
    let (name, value) = match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    };
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        .then_some((name, value))
}

fn dashed(name: &str, value: Option<&str>) -> String {
    let dashes = if name.len() == 1 { "-" } else { "--" };
    match value {
        Some(value) => format!("{dashes}{name}={value}"),
        None => format!("{dashes}{name}"),
    }
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        let short = arg.get_short().is_some_and(|c| name == c.to_string());
        let aliases = arg.get_all_aliases().unwrap_or_default();
        short || arg.get_long() == Some(name) || aliases.contains(&name)
    })
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Whether the next argument is this flag's value, whatever it looks like.
fn wants_next(arg: &Arg) -> bool {
    let required = arg
        .get_num_args()
        .is_none_or(|range| range.min_values() > 0);
    arg.get_action().takes_values() && required && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{CommandFactory, Parser};
    use proptest::prelude::*;

    use super::*;
    use crate::args::Cli;

    fn line(text: &str) -> String {
        let arguments = text.split(' ').map(str::to_owned);
        normalise(&Cli::command(), arguments).join(" ")
    }

    #[test]
    fn one_dash_becomes_two() {
        for (from, to) in [
            (
                "m intention create -allow a b",
                "m intention create --allow a b",
            ),
            (
                "m intention create --allow a b",
                "m intention create --allow a b",
            ),
            (
                "m intention list -http-addr=x",
                "m intention list --http-addr=x",
            ),
            (
                "m intention list -http-addr x",
                "m intention list --http-addr x",
            ),
            ("m intention list -o json", "m intention list -o json"),
            ("m intention list -o=json", "m intention list -o=json"),
            ("m intention list -json", "m intention list --json"),
            ("m intention -h", "m intention -h"),
            ("m intention -help", "m intention --help"),
            ("m -version", "m --version"),
            (
                "m intention create -alow a b",
                "m intention create --alow a b",
            ),
        ] {
            assert_eq!(line(from), to);
        }
    }

    #[test]
    fn values_are_left_alone() {
        for (from, to) in [
            (
                "m intention create -description -urgent a b",
                "m intention create --description=-urgent a b",
            ),
            (
                "m intention create -description --allow a b",
                "m intention create --description=--allow a b",
            ),
            (
                "m intention create -meta -k=v -allow a b",
                "m intention create --meta=-k=v --allow a b",
            ),
            (
                "m intention create -allow -- -a -b",
                "m intention create --allow -- -a -b",
            ),
            ("m intention create -file -", "m intention create --file -"),
            ("m apply -f -", "m apply -f -"),
            (
                "m intention create -wait -allow a b",
                "m intention create --wait --allow a b",
            ),
            (
                "m intention create -wait=5s a b",
                "m intention create --wait=5s a b",
            ),
            ("m intention get -5 -a", "m intention get -5 -a"),
        ] {
            assert_eq!(line(from), to);
        }
    }

    #[test]
    fn a_name_means_what_its_command_says() {
        // `-server` is a switch of one and takes a value of the other.
        assert_eq!(
            line("m tls cert create -server -node a"),
            "m tls cert create --server --node a"
        );
        assert_eq!(line("m agent -server -x"), "m agent --server=-x");
    }

    #[test]
    fn switches_take_gos_booleans() {
        assert_eq!(
            line("m intention list -stale=true"),
            "m intention list --stale"
        );
        assert_eq!(line("m intention list -stale=false"), "m intention list");
    }

    #[test]
    fn what_comes_out_parses() {
        let text = "m intention create -deny -description -x -meta a=-b -- web db";
        let arguments = normalise(&Cli::command(), text.split(' ').map(str::to_owned));
        Cli::try_parse_from(arguments).unwrap();
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "-{0,3}[a-z-]{0,8}(=[a-z-]{0,3})?",
            prop::sample::select(vec![
                "intention",
                "create",
                "-allow",
                "--allow",
                "-description",
                "-o",
                "-meta",
                "-wait",
                "--",
                "-",
                "-stale=false",
            ])
            .prop_map(str::to_owned),
            ".{0,6}",
        ]
    }

    proptest! {
        // Each case builds the tree of commands.
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Twice is as once.
        #[test]
        fn normalising_is_stable(words in prop::collection::vec(word(), 0..8)) {
            let root = Cli::command();
            let all: Vec<String> = std::iter::once("m".to_owned()).chain(words).collect();
            let once = normalise(&root, all);
            let twice = normalise(&root, once.clone());
            prop_assert_eq!(&once, &twice);
        }

        /// After a `--` that is no flag's value (`-description --`) nothing changes.
        #[test]
        fn after_two_dashes_nothing_changes(
            head in prop::collection::vec(word(), 0..6),
            tail in prop::collection::vec(word(), 0..6),
        ) {
            let root = Cli::command();
            let mut all: Vec<String> = std::iter::once("m".to_owned()).chain(head).collect();
            // A flag at the end that takes a value joins a probe to itself.
            let probe = "-0".to_owned();
            let probed = normalise(&root, all.iter().cloned().chain([probe.clone()]));
            prop_assume!(probed.last() == Some(&probe));
            let mut expected = normalise(&root, all.clone());
            let end = ["--".to_owned()];
            all.extend(end.iter().chain(&tail).cloned());
            expected.extend(end.iter().chain(&tail).cloned());
            prop_assert_eq!(normalise(&root, all), expected);
        }

        /// One dash or two, it is the same.
        #[test]
        fn dashes_do_not_matter(names in prop::collection::vec("[a-z]{2}[a-z-]{0,6}", 0..5)) {
            let root = Cli::command();
            let with = |dashes: &str| {
                let flags = names.iter().map(|name| format!("{dashes}{name}"));
                let head = ["m", "intention", "create"].map(str::to_owned);
                head.into_iter().chain(flags).collect::<Vec<_>>()
            };
            // After a flag that takes a value the next is one, as it stands.
            let values = ["description", "meta", "owner", "namespace", "output", "source-type"];
            prop_assume!(!names.iter().any(|name| values.contains(&name.as_str())));
            prop_assert_eq!(normalise(&root, with("-")), normalise(&root, with("--")));
        }
    }
}
