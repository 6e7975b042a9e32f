//! `logmill completions` and `logmill man`: what a shell and `man` want to know of this command.

use std::io::{Write, stdout};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::failure::{Failure, Outcome};

/// Print what a shell needs to complete this command
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  logmill completions bash > /etc/bash_completion.d/logmill
  logmill completions zsh > \"${fpath[1]}/_logmill\"
  logmill completions fish > ~/.config/fish/completions/logmill.fish")]
pub struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

/// Print a manual page
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  logmill man | man -l -
  logmill man queue send > logmill-queue-send.1")]
pub struct ManArguments {
    /// The subcommand whose page it is, such as `queue send`; of logmill itself unless given
    subcommand: Vec<String>,
}

/// Runs `completions`.
pub fn run_completions(mut root: Command, arguments: &CompletionsArguments) -> Outcome {
    // Written at once: the generator knows no closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, "logmill", &mut script);
    stdout().write_all(&script).map_err(Failure::output)
}

/// Runs `man`.
pub fn run_man(mut root: Command, arguments: &ManArguments) -> Outcome {
    root.build();
    let mut command = &root;
    for name in &arguments.subcommand {
        command = command
            .find_subcommand(name)
            .ok_or_else(|| Failure::Usage(format!("there is no command `{name}`")))?;
    }
    let title = ["logmill"].into_iter().chain(arguments.subcommand.iter().map(String::as_str));
    let title = title.collect::<Vec<_>>().join("-");
    let source = format!("logmill {}", root.get_version().unwrap_or_default());
    let page = Man::new(command.clone()).title(title.to_uppercase()).source(source);
    page.render(&mut stdout()).map_err(Failure::output)
}
