//! A run described in TOML: `scenario` names it, the other keys are its options.
//!
//! The file becomes a command line, so that files, flags and `--help` cannot disagree.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clap::{ArgAction, Command};
use toml::{Table, Value};

/// Largest file. Source: arbitrary, because a run has some thirty options.
const BYTES_MAX: u64 = 64 * 1024;
/// The key that names the scenario.
const SCENARIO: &str = "scenario";
/// Commands that are no scenarios.
const OTHERS: [&str; 7] = [
    "run",
    "worker",
    "drain",
    "publish",
    "raw",
    "report",
    "self-test",
];

/// Why a file describes no run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} has more than {BYTES_MAX} bytes")]
    TooLarge { path: String },
    #[error("{path}: {source}")]
    Toml {
        path: String,
        source: Box<toml::de::Error>,
    },
    #[error("{path} names no scenario; write scenario = \"steady\"")]
    NoScenario { path: String },
    #[error("{path}: there is no scenario {name:?}; the nearest one is {nearest:?}")]
    Scenario {
        path: String,
        name: String,
        nearest: String,
    },
    #[error("{path}: {key:?} is not an option of {scenario}; the nearest one is {nearest:?}")]
    Key {
        path: String,
        key: String,
        scenario: String,
        nearest: String,
    },
    #[error("{path}: {key:?} is {kind}; write {example}")]
    Value {
        path: String,
        key: String,
        kind: &'static str,
        example: &'static str,
    },
}

/// The arguments that a file stands for: the scenario, and its options. `program` is the whole
/// command line's description.
///
/// # Errors
///
/// [`FileError`].
pub(crate) fn arguments(path: &Path, program: &Command) -> Result<Vec<String>, FileError> {
    let name = path.display().to_string();
    let read = |source| FileError::Read {
        path: name.clone(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    file.take(BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(FileError::TooLarge { path: name });
    }
    of_text(&name, &text, program)
}

fn of_text(path: &str, text: &str, program: &Command) -> Result<Vec<String>, FileError> {
    let path = path.to_owned();
    let mut table: Table = match text.parse() {
        Ok(table) => table,
        Err(source) => {
            return Err(FileError::Toml {
                path,
                source: Box::new(source),
            });
        }
    };
    let Some(Value::String(scenario)) = table.remove(SCENARIO) else {
        return Err(FileError::NoScenario { path });
    };
    let scenarios = || {
        program
            .get_subcommands()
            .filter(|command| !OTHERS.contains(&command.get_name()))
    };
    let Some(command) = scenarios().find(|command| command.get_name() == scenario) else {
        let names = scenarios().map(Command::get_name);
        return Err(FileError::Scenario {
            path,
            nearest: nearest(&scenario, names),
            name: scenario,
        });
    };
    let mut arguments = vec![scenario.clone()];
    for (key, value) in &table {
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key));
        let Some(argument) = argument else {
            let names = command.get_arguments().filter_map(|known| known.get_long());
            return Err(FileError::Key {
                path,
                key: key.clone(),
                scenario,
                nearest: nearest(key, names),
            });
        };
        let action = argument.get_action();
        push(&mut arguments, &path, (key, value), action)?;
    }
    Ok(arguments)
}

/// Adds one option, as often as its value is a list long.
fn push(
    arguments: &mut Vec<String>,
    path: &str,
    (key, value): (&str, &Value),
    action: &ArgAction,
) -> Result<(), FileError> {
    let wrong = |kind, example| FileError::Value {
        path: path.to_owned(),
        key: key.to_owned(),
        kind,
        example,
    };
    if let ArgAction::SetTrue = action {
        let Value::Boolean(is_set) = value else {
            return Err(wrong("neither true nor false", "true or false"));
        };
        if *is_set {
            arguments.push(format!("--{key}"));
        }
        return Ok(());
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(_) => return Err(wrong("true or false", "a number or a text")),
        Value::Datetime(_) => return Err(wrong("a date", "a number or a text")),
        Value::Table(_) => return Err(wrong("a table", "a number or a text")),
        Value::Array(values) => {
            if !matches!(action, ArgAction::Append) {
                return Err(wrong("a list, and the option is taken once", "one value"));
            }
            for value in values {
                if matches!(value, Value::Array(_)) {
                    return Err(wrong("a list of lists", "a list of texts"));
                }
                push(arguments, path, (key, value), action)?;
            }
            return Ok(());
        }
    };
    arguments.push(format!("--{key}={text}"));
    Ok(())
}

/// The name that is most like `name`.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    nearest.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::options::{Command as Parsed, Options};

    fn read(text: &str) -> Result<Vec<String>, FileError> {
        of_text("run.toml", text, &Options::command())
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_becomes_the_command_line_of_its_scenario() {
        let text = "scenario = \"storm\"\nchannels = 50\nconnections = 100\nduration = \"4s\"\n\
                    no-ack = true\nquiet = false\nslo = [\"p99<100ms\", \"dropped=0\"]\n";
        let arguments = read(text).unwrap();
        assert_eq!(arguments[0], "storm");
        assert!(arguments.contains(&"--no-ack".to_owned()));
        assert!(!arguments.iter().any(|argument| argument.contains("quiet")));
        let line = std::iter::once("loadgen".to_owned()).chain(arguments);
        let matches = Options::command().try_get_matches_from(line).unwrap();
        let options = Options::from_arg_matches(&matches).unwrap();
        let Parsed::Storm(options) = options.command else {
            panic!("{options:?}");
        };
        assert_eq!(options.channels, 50);
        assert_eq!(options.run.slo.len(), 2);
        assert_eq!(options.run.ramp.connections, 100);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        let text = error("scenario = \"steady\"\nconections = 5\n");
        assert_eq!(
            text,
            "run.toml: \"conections\" is not an option of steady; the nearest one is \
             \"connections\""
        );
        // An option of another scenario is none of this one.
        assert!(error("scenario = \"steady\"\nchannels = 5\n").contains("not an option of steady"));
    }

    #[test]
    fn an_unknown_scenario_is_an_error_that_names_the_nearest() {
        assert!(error("scenario = \"strom\"").ends_with("the nearest one is \"storm\""));
        assert!(error("scenario = \"drain\"").contains("there is no scenario \"drain\""));
        assert!(error("connections = 5").contains("write scenario = \"steady\""));
    }

    #[test]
    fn values_of_the_wrong_kind_are_errors_that_say_which_is_right() {
        let steady = |line: &str| error(&format!("scenario = \"steady\"\n{line}\n"));
        assert!(steady("no-ack = 1").contains("write true or false"));
        assert!(steady("connections = true").contains("write a number or a text"));
        assert!(steady("connections = [1, 2]").contains("taken once"));
        assert!(steady("load = { rate = 1 }").contains("not an option"));
        assert!(steady("slo = [[\"p99<1s\"]]").contains("write a list of texts"));
        assert!(steady("connections =").contains("run.toml:"));
    }

    #[test]
    fn a_file_that_is_not_there_or_is_huge_is_an_error_with_its_name() {
        let missing = arguments(Path::new("/nonexistent/run.toml"), &Options::command());
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("/nonexistent/run.toml: ")
        );
        let huge = arguments(Path::new("/dev/zero"), &Options::command());
        assert!(matches!(huge, Err(FileError::TooLarge { .. })));
    }
}
