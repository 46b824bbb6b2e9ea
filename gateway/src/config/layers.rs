//! The layers: which text each option has, and who said so.

use std::path::PathBuf;

use toml::de::DeValue;

use super::options::{self, OPTIONS, OptionSpec, Shown};
use super::{Config, ConfigError, Origin};

/// In front of every variable.
pub(super) const ENV_PREFIX: &str = "FRESHET_";

/// The well-known gateway key of the demo, which `demo` alone makes valid.
const DEMO_CONTROL_KEY: &str = "demo-gateway-key";

/// The text and the origin of every option, in the order of the table.
#[derive(Debug)]
pub(super) struct Layers {
    values: Vec<Effective>,
}

/// One option's effective value.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    pub(super) option: &'static OptionSpec,
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Layers {
    /// Puts the layers on top of each other. A file that is named must be there.
    pub(super) fn read(
        flags: &[(&'static str, String)],
        path: Option<PathBuf>,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let default = |option: &'static OptionSpec| Effective {
            option,
            text: option.default.to_owned(),
            origin: Origin::Default,
        };
        let mut layers = Self {
            values: OPTIONS.iter().map(default).collect(),
        };
        if let Some(path) = path {
            layers.read_file(path)?;
        }
        for option in OPTIONS {
            let variable = option.variable();
            if let Some(text) = env(&variable) {
                layers.put(option.name, text, Origin::Environment { variable });
            }
        }
        for (name, text) in flags {
            layers.put(name, text.clone(), Origin::Flag { name });
        }
        layers.apply_demo();
        Ok(layers)
    }

    /// Every option, with its value.
    pub(super) fn values(&self) -> &[Effective] {
        &self.values
    }

    /// The typed configuration, without the checks of combinations.
    pub(super) fn resolve(&self) -> Result<Config, ConfigError> {
        let mut config = Config::blank();
        for value in &self.values {
            (value.option.set)(&mut config, &value.text).map_err(|expected| {
                ConfigError::WrongValue {
                    option: value.option.name,
                    origin: value.origin.clone(),
                    value: value.quoted(),
                    expected,
                }
            })?;
        }
        Ok(config)
    }

    fn read_file(&mut self, path: PathBuf) -> Result<(), ConfigError> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Err(ConfigError::FileUnreadable { path, error }),
        };
        let table = match toml::de::DeTable::parse(&text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let error = Box::new(error);
                return Err(ConfigError::FileMalformed { path, error });
            }
        };
        for (key, value) in &table {
            let line = 1 + text[..key.span().start].matches('\n').count();
            let key = key.get_ref();
            let Some(option) = options::find(key) else {
                return Err(ConfigError::UnknownKey {
                    path,
                    line,
                    key: key.clone().into_owned(),
                    nearest: options::nearest(key),
                });
            };
            let origin = Origin::File {
                path: path.clone(),
                line,
            };
            match scalar(value.get_ref()) {
                Some(text) => self.put(option.name, text, origin),
                None => {
                    return Err(ConfigError::WrongValue {
                        option: option.name,
                        origin,
                        value: format!("a {}", value.get_ref().type_str()),
                        expected: "a text, a whole number or a truth value".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &str, text: String, origin: Origin) {
        let value = self.slot(name);
        value.text = text;
        value.origin = origin;
    }

    fn slot(&mut self, name: &str) -> &mut Effective {
        self.values
            .iter_mut()
            .find(|value| value.option.name == name)
            .expect("every option of the table has a value")
    }

    fn apply_demo(&mut self) {
        let is_demo = self.slot("demo").text == "true";
        if is_demo && self.slot("control-key").text.is_empty() {
            let text = DEMO_CONTROL_KEY.to_owned();
            self.put("control-key", text, Origin::DemoDefault);
        }
    }
}

impl Effective {
    fn quoted(&self) -> String {
        match self.option.shown {
            Shown::Never => "the value".to_owned(),
            Shown::Text | Shown::Switch => format!("{:?}", self.text),
        }
    }
}

/// The text of a value as it would stand on the command line; none for a list, a table, a date.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    if let Some(truth) = value.as_bool() {
        return Some(truth.to_string());
    }
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .map(|number| number.to_string())
}
