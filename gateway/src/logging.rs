//! Log lines: JSON or for people, on standard error, with a level that can be changed while running.

mod json;

use std::fmt;
use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as lines, reload};

use crate::config::LogFormat;

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The text is not a level, nor directives as `EnvFilter` reads them.
    #[error("{directive:?} is not a level such as info, nor directives such as info,hyper=warn")]
    Directive {
        /// The text.
        directive: String,
    },
    /// This process logs already.
    #[error("logging was set up before")]
    AlreadyInstalled,
    /// The subscriber behind the handle is gone, as at the end of a test.
    #[error("the log's level can no longer be changed")]
    Gone,
}

/// Reads and changes what is logged, from any thread.
#[derive(Clone)]
pub struct LevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LevelHandle").field(&self.current()).finish()
    }
}

impl LevelHandle {
    /// Logs by `directive` from now on.
    ///
    /// # Errors
    ///
    /// [`LoggingError::Directive`], and nothing is changed; [`LoggingError::Gone`].
    pub fn set(&self, directive: &str) -> Result<(), LoggingError> {
        let filter = parse(directive)?;
        self.filter.reload(filter).map_err(|_| LoggingError::Gone)
    }

    /// The directives in force; empty if logging is gone.
    pub fn current(&self) -> String {
        self.filter
            .with_current(EnvFilter::to_string)
            .unwrap_or_default()
    }
}

/// Starts logging for the whole process.
///
/// # Errors
///
/// [`LoggingError::Directive`] for the level, [`LoggingError::AlreadyInstalled`] the second time.
pub fn init(format: LogFormat, level: &str) -> Result<LevelHandle, LoggingError> {
    let (filter, handle) = reloadable(level)?;
    let is_json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Human => false,
    };
    let lines = if is_json {
        json_lines(stderr).boxed()
    } else {
        lines::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            .boxed()
    };
    Registry::default()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| LoggingError::AlreadyInstalled)?;
    Ok(handle)
}

fn reloadable(
    level: &str,
) -> Result<(reload::Layer<EnvFilter, Registry>, LevelHandle), LoggingError> {
    let (layer, filter) = reload::Layer::new(parse(level)?);
    Ok((layer, LevelHandle { filter }))
}

fn parse(directive: &str) -> Result<EnvFilter, LoggingError> {
    let error = || LoggingError::Directive {
        directive: directive.to_owned(),
    };
    if directive.trim().is_empty() {
        return Err(error());
    }
    EnvFilter::try_new(directive).map_err(|_| error())
}

fn json_lines<S, W>(writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> lines::MakeWriter<'a> + 'static,
{
    lines::layer()
        .with_writer(writer)
        .fmt_fields(lines::format::JsonFields::new())
        .event_format(json::JsonLine)
}

#[cfg(test)]
mod tests;
