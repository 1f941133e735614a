//! `meshctl completion`: what a shell needs to complete commands and flags.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::args::root;
use crate::console::Console;
use crate::error::CliError;

/// Print a completion script for a shell
///
/// bash: source <(meshctl completion bash)
/// zsh:  meshctl completion zsh > "${fpath[1]}/_meshctl"
/// fish: meshctl completion fish > ~/.config/fish/completions/meshctl.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Known,
}

/// The shells that we look at.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    // Into memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root(), "meshctl", &mut script);
    console.text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
