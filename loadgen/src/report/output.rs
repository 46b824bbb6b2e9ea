//! Reports as files: JSON for programs, HTML for people.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::{Report, SCHEMA, html};

/// Largest report that is read. Source: arbitrary, because 3,600 points of seven histograms have
/// some 100 MB and a run of minutes has 100 KB.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a report cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path} is larger than {BYTES_MAX} bytes")]
    TooLarge { path: String },
    #[error("{path} is not a report of loadgen: {source}")]
    Json {
        path: String,
        source: serde_json::Error,
    },
    #[error("{path} has schema {found} and this program reads {SCHEMA}")]
    Schema { path: String, found: u32 },
    #[error("{path}: a report is written as .json or .html")]
    Ending { path: String },
    #[error("{path}: {source}")]
    Merge {
        path: String,
        source: super::MergeError,
    },
}

/// Writes a report as its path's ending says; HTML has the lines of `old` beside its own.
///
/// # Errors
///
/// [`ReportError::Ending`] if it is neither `.json` nor `.html`, [`ReportError::File`].
pub(crate) fn write(report: &Report, path: &Path, old: Option<&Report>) -> Result<(), ReportError> {
    let text = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::to_string_pretty(report).expect("a report has text keys only"),
        Some("html") => html::page(report, old),
        Some(_) | None => {
            return Err(ReportError::Ending {
                path: path.display().to_string(),
            });
        }
    };
    fs::write(path, text).map_err(|source| file(path, source))
}

/// Reads a report from JSON.
///
/// # Errors
///
/// [`ReportError`]: it is not there, too large, no report, or of another schema.
pub(crate) fn read(path: &Path) -> Result<Report, ReportError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| file(path, source))?;
    let name = || path.display().to_string();
    if bytes.len() as u64 > BYTES_MAX {
        return Err(ReportError::TooLarge { path: name() });
    }
    let json = |source| ReportError::Json {
        path: name(),
        source,
    };
    // The schema first: a report of another one may lack what this one has.
    let Schema { schema } = serde_json::from_slice(&bytes).map_err(json)?;
    if schema != SCHEMA {
        return Err(ReportError::Schema {
            path: name(),
            found: schema,
        });
    }
    serde_json::from_slice(&bytes).map_err(json)
}

/// What every schema has.
#[derive(serde::Deserialize)]
struct Schema {
    schema: u32,
}

fn file(path: &Path, source: io::Error) -> ReportError {
    ReportError::File {
        path: path.display().to_string(),
        source,
    }
}
