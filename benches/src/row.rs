//! The shape of a row: what is measured, what it is to reach, and one run of it.

use serde::Serialize;

use crate::children::{ChildError, Programs};
use crate::site::SiteError;

/// One measurement.
#[derive(Debug)]
pub(crate) struct Row {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// Which of the thirteen objectives of `docs/benchmarks.md` it belongs to.
    pub(crate) number: u32,
    pub(crate) what: &'static str,
    /// How long one run takes, about.
    pub(crate) seconds: u64,
    pub(crate) run: fn(&Bench) -> Result<Vec<Sample>, RowError>,
}

/// What a row is measured with.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    /// 1 for the real figures; less to see whether a row runs.
    pub(crate) scale: f64,
}

impl Bench {
    /// So many clients, or fewer on a smaller scale.
    pub(crate) fn clients(&self, count: u32) -> u32 {
        // Truncation is right: a part of a client is none.
        ((f64::from(count) * self.scale) as u32).max(20)
    }

    /// So many seconds, or fewer on a smaller scale.
    pub(crate) fn seconds(&self, count: u64) -> std::time::Duration {
        std::time::Duration::from_secs_f64((count as f64 * self.scale).max(2.0))
    }
}

/// One figure of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// The same of the baseline beside it.
    pub(crate) raw: Option<f64>,
    pub(crate) target: Target,
}

/// What the median of a figure is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "limit", rename_all = "lowercase")]
pub(crate) enum Target {
    /// Value by baseline, at most.
    Ratio(f64),
    /// The value, at most.
    Most(f64),
    /// The value, at least.
    Least(f64),
    /// It is only shown.
    Shown,
}

impl Sample {
    pub(crate) const fn new(figure: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            figure,
            unit,
            value,
            raw: None,
            target: Target::Shown,
        }
    }

    pub(crate) const fn beside(mut self, raw: f64) -> Self {
        self.raw = Some(raw);
        self
    }

    pub(crate) const fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Http(#[from] crate::http::HttpError),
    #[error("{what}: {found} where {wanted} were wanted")]
    Sum {
        what: &'static str,
        found: u64,
        wanted: u64,
    },
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    #[error("{what} ended by a bug")]
    Panicked { what: &'static str },
}

/// Checks that figures add up.
///
/// # Errors
///
/// [`RowError::Sum`]: there is no row then.
pub(crate) const fn equal(what: &'static str, found: u64, wanted: u64) -> Result<(), RowError> {
    if found == wanted {
        return Ok(());
    }
    Err(RowError::Sum {
        what,
        found,
        wanted,
    })
}
