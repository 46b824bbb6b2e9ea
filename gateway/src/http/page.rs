//! The page at `/`: files that are part of the binary.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response};

use super::answer::{self, Answer};

/// Whether a path is a file of the page.
pub(super) fn is_file(path: &str) -> bool {
    ASSETS.iter().any(|Asset(known, ..)| *known == path)
}

/// Path, media type, content.
struct Asset(&'static str, &'static str, &'static [u8]);

macro_rules! asset {
    ($path:literal, $kind:literal, $file:literal) => {
        Asset(
            $path,
            $kind,
            include_bytes!(concat!("../../assets/", $file)),
        )
    };
}

const JS: &str = "text/javascript; charset=utf-8";

macro_rules! script {
    ($file:literal) => {
        Asset(
            concat!("/assets/", $file),
            JS,
            include_bytes!(concat!("../../assets/", $file)),
        )
    };
}

/// Every file of the page.
const ASSETS: [Asset; 13] = [
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/assets/style.css", "text/css; charset=utf-8", "style.css"),
    asset!("/assets/icon.svg", "image/svg+xml", "icon.svg"),
    script!("api.js"),
    script!("app.js"),
    script!("channel.js"),
    script!("charts.js"),
    script!("dom.js"),
    script!("integrity.js"),
    script!("panels.js"),
    script!("stream.js"),
    script!("table.js"),
    script!("theme.js"),
];

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str =
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// The file at a path.
pub(super) fn page(path: &str) -> Option<Answer> {
    let Asset(_, kind, content) = ASSETS.iter().find(|asset| asset.0 == path)?;
    let mut answer = Response::new(answer::whole(Bytes::from_static(content)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    Some(answer)
}
