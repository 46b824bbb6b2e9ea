//! `freshet config print`: every option as TOML that can be read again.

use std::fmt::Write as _;

use super::layers::{Effective, Layers};
use super::options::Shown;

/// Every option with its documentation, its value and where the value came from.
pub(super) fn text(layers: &Layers) -> String {
    let mut out = String::from("# The effective configuration of freshet.\n");
    for value in layers.values() {
        write_option(&mut out, value).expect("writing to a String cannot fail");
    }
    out
}

fn write_option(out: &mut String, value: &Effective) -> std::fmt::Result {
    let option = value.option;
    let default = match option.default {
        "" => "not set",
        default => default,
    };
    writeln!(out, "\n# {}.", option.help)?;
    writeln!(out, "# From: {}. Default: {default}.", value.origin)?;
    writeln!(
        out,
        "# Flag: --{}. Environment: {}.",
        option.name,
        option.variable()
    )?;
    match option.shown {
        // In a comment, so that what is printed can be used as a file and sets no wrong key.
        Shown::Never if value.text.is_empty() => writeln!(out, "# {} = \"\"", option.name),
        Shown::Never => writeln!(out, "# {} = \"(set)\"", option.name),
        Shown::Text => writeln!(out, "{} = {}", option.name, toml_text(&value.text)),
        Shown::Switch => writeln!(out, "{} = {}", option.name, value.text),
    }
}

/// A plain number as it is, anything else in quotes.
fn toml_text(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        Ok(_) | Err(_) => toml::Value::from(text).to_string(),
    }
}
