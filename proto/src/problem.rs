//! Problem documents (RFC 9457): what an error looks like to people and programs.

use serde::{Deserialize, Serialize};

use crate::ids::TenantId;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as it is answered over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Which kind of problem: `about:freshet:` and the first reason code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was wrong, in a few words that are the same each time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// The trace the request belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    /// The tenant of the caller.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant_id: Option<TenantId>,
    /// Stable words for programs, most specific first.
    pub reason_codes: Vec<String>,
    /// For 422: what exactly, and where.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub violations: Vec<Violation>,
}

/// One thing that is wrong in a request that was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// A stable word: `value.too_large`.
    pub code: String,
    /// Where: `changes.set["features/x"]`.
    pub path: String,
    /// What to do about it.
    pub message: String,
    /// The bound that was broken, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
    /// The number that broke it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actual: Option<u64>,
}

impl Problem {
    /// A problem of `status` with one reason code.
    pub fn new(status: u16, reason: &str, title: &str) -> Self {
        Self {
            kind: format!("about:freshet:{reason}"),
            title: title.to_owned(),
            status,
            detail: None,
            trace_id: None,
            tenant_id: None,
            reason_codes: vec![reason.to_owned()],
            violations: Vec::new(),
        }
    }

    /// Says what was wrong this time and what to do about it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem has text keys only")
    }
}
