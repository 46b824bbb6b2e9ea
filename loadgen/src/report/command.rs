//! `loadgen report`: one page from the JSON of a run, or of the parts of one.

use super::output::{ReportError, read, write};
use crate::options::ReportOptions;

/// Reads, merges, judges and writes. Answers whether the run passed.
///
/// # Errors
///
/// [`ReportError`].
pub(crate) fn run(options: &ReportOptions) -> Result<bool, ReportError> {
    let old = options.compare.as_deref().map(read).transpose()?;
    let (first, parts) = options
        .runs
        .split_first()
        .expect("the command line asks for at least one");
    let mut report = read(first)?;
    for part in parts {
        let merged = report.merge(&read(part)?);
        merged.map_err(|source| ReportError::Merge {
            path: part.display().to_string(),
            source,
        })?;
    }
    // A run that is shown as it was keeps its verdict.
    if !parts.is_empty() || !options.slo.is_empty() {
        report.judge(&options.slo);
    }
    for path in options.html.iter().chain(&options.json) {
        write(&report, path, old.as_ref())?;
    }
    Ok(report.passed)
}
