//! Commands as users run them, against a server of canned answers: output,
//! exit code and what was asked of the server, as golden files.
#![allow(clippy::unwrap_used)]

mod apply;
mod config;
mod fake;
mod help;
mod intention;
mod look;
mod offline;
mod snapshot;

use std::io::Cursor;
use std::time::{Duration, UNIX_EPOCH};

use fake::Fake;

use crate::Console;
use crate::output::WIDTH;

/// What one command did.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs meshctl against `fake`; `input` is what a person at a terminal types.
async fn run(fake: &Fake, line: &[&str], input: Option<&str>) -> Ran {
    run_at(fake, line, input, false).await
}

/// The same at a terminal with colours or without.
async fn run_at(fake: &Fake, line: &[&str], input: Option<&str>, colour: bool) -> Ran {
    let address = fake.address.clone();
    let env = move |name: &str| (name == "MESHCTL_HTTP_ADDR").then(|| address.clone());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut typed = Cursor::new(input.unwrap_or_default().as_bytes().to_vec());
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        input: &mut typed,
        interactive: input.is_some(),
        colour,
        env: &env,
        now: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
    };
    let arguments = std::iter::once("meshctl").chain(line.iter().copied());
    let code = crate::run(arguments.map(str::to_owned).collect(), &mut console).await;
    Ran {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

/// Several commands one after the other, as a terminal shows them, with what
/// each asked of the server. Error lines begin with `!`, questions with `>`.
#[derive(Default)]
struct Transcript(String);

impl Transcript {
    async fn run(&mut self, fake: &Fake, line: &[&str]) -> Ran {
        self.run_with(fake, line, None).await
    }

    async fn run_with(&mut self, fake: &Fake, line: &[&str], input: Option<&str>) -> Ran {
        let ran = run(fake, line, input).await;
        let clean = |text: &str| text.replace(&fake.address, "http://SERVER");
        let words: Vec<String> = line
            .iter()
            .map(|word| match word.contains(' ') {
                true => format!("'{word}'"),
                false => (*word).to_owned(),
            })
            .collect();
        self.0
            .push_str(&format!("$ meshctl {}\n", clean(&words.join(" "))));
        self.0.push_str(&clean(&ran.out));
        for line in clean(&ran.err).lines() {
            self.0.push_str(&format!("! {line}\n"));
        }
        for question in fake.take() {
            self.0.push_str(&format!("> {question}\n"));
        }
        self.0.push_str(&format!("[exit {}]\n\n", ran.code));
        ran
    }
}

/// Every line fits a terminal.
fn assert_fits(text: &str) {
    let wide = text.lines().filter(|line| line.chars().count() > WIDTH);
    assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new());
}
