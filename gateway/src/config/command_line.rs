//! The command line, made from the table of options.

use std::path::PathBuf;

use clap::{Arg, ArgMatches};

use super::layers::ENV_PREFIX;
use super::options::OPTIONS;

/// The whole command line, its options made from the table.
pub(super) fn command() -> clap::Command {
    let serve = clap::Command::new("serve")
        .about("Runs the gateway, the control plane, or both in one process (the default)");
    let print = clap::Command::new("print")
        .about("Shows every option with its value, where it came from and what it is, as TOML");
    clap::Command::new("freshet")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A refresh fan-out gateway: one published change reaches every live client")
        .after_help(
            "An option is set by flag, by environment (FRESHET_ and the name in capitals with _), \
             or in a TOML file; the flag wins, then the environment, then the file.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_options(serve))
        .subcommand(
            clap::Command::new("config")
                .about("Looks at the configuration")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(with_options(print)),
        )
}

fn with_options(command: clap::Command) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "A TOML file with options; none is read unless named [env: {ENV_PREFIX}CONFIG]"
        ));
    OPTIONS.iter().fold(command.arg(config), |command, option| {
        let arg = Arg::new(option.name)
            .long(option.name)
            .value_name(option.value_name)
            .help(option.flag_help());
        command.arg(if option.is_switch() {
            // `--demo` alone means `--demo=true`.
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            arg.allow_hyphen_values(true)
        })
    })
}

/// The options that were given, with their texts.
pub(super) fn flags(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    OPTIONS
        .iter()
        .filter_map(|option| {
            let value = matches.get_one::<String>(option.name)?;
            Some((option.name, value.clone()))
        })
        .collect()
}

/// The file that was named, by flag or by environment.
pub(super) fn config_path(
    matches: &ArgMatches,
    env: &impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    matches
        .get_one::<PathBuf>("config")
        .cloned()
        .or_else(|| env(&format!("{ENV_PREFIX}CONFIG")).map(PathBuf::from))
}
