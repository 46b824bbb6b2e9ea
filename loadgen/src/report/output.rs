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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ReportOptions;
    use crate::report::{Asked, Count, command};

    fn measured(deliveries: u64) -> Report {
        let mut report = Report::new(Asked::new("steady", 1));
        report.totals.set(Count::Deliveries, deliveries);
        report.judge(&[]);
        report
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        write(&measured(5), &path, None).unwrap();
        assert_eq!(read(&path).unwrap().totals, measured(5).totals);
        let page = folder.path().join("run.html");
        write(&measured(5), &page, None).unwrap();
        assert!(
            fs::read_to_string(&page)
                .unwrap()
                .starts_with("<!doctype html>")
        );
        let error = write(&measured(5), &folder.path().join("run.txt"), None).unwrap_err();
        assert!(error.to_string().contains(".json or .html"), "{error}");
    }

    #[test]
    fn what_is_no_report_is_refused_with_its_path_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let missing = read(&path).unwrap_err().to_string();
        assert!(missing.contains("run.json"), "{missing}");
        for (text, says) in [
            ("", "is not a report of loadgen"),
            ("{\"passed\":true}", "missing field `schema`"),
            ("{\"schema\":1}", "missing field"),
            (
                "{\"schema\":99,\"other\":1}",
                "has schema 99 and this program reads 1",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_parts_of_a_run_become_one_report_and_are_judged_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&measured(5), &path("a.json"), None).unwrap();
        write(&measured(7), &path("b.json"), None).unwrap();
        let mut options = ReportOptions {
            runs: vec![path("a.json"), path("b.json")],
            html: Some(path("all.html")),
            json: Some(path("all.json")),
            compare: Some(path("a.json")),
            slo: Vec::new(),
        };
        assert!(command::run(&options).unwrap());
        let all = read(&path("all.json")).unwrap();
        assert_eq!(
            (all.totals.count(Count::Deliveries), all.asked.workers),
            (Some(12), 2)
        );
        let page = fs::read_to_string(path("all.html")).unwrap();
        assert!(page.contains("2.40\u{202f}×"), "12 deliveries beside 5");
        options.slo = vec!["p99<1ms".parse().unwrap()];
        assert!(!command::run(&options).unwrap(), "no latency was measured");
    }
}
