//! What is read of a request: JSON bodies and queries; and how answers are sent.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::ApiError;
use super::routes::Endpoint;
use crate::change::violation;
use crate::limits::{BODY_BYTES_MAX, BODY_TIME};
use crate::plane::ControlPlane;
use crate::writer::Answer;

/// The media type of every document. Source: RFC 8259 section 11.
const JSON: &str = "application/json";

/// A JSON body of at most `CAP` bytes.
#[derive(Debug)]
pub(super) struct Json<T, const CAP: usize = BODY_BYTES_MAX> {
    pub(super) value: T,
    /// The body as it came: part of what an `Idempotency-Key` stands for.
    pub(super) raw: Bytes,
}

impl<T: DeserializeOwned, const CAP: usize> FromRequest<ControlPlane> for Json<T, CAP> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &ControlPlane) -> Result<Self, ApiError> {
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|bytes| bytes > CAP) {
            return Err(too_large(CAP));
        }
        let whole = tokio::time::timeout(BODY_TIME, whole(request.into_body(), CAP));
        let raw = whole.await.map_err(|_| too_slow())??;
        Ok(Self {
            value: read(&raw)?,
            raw,
        })
    }
}

/// Collects a body into one piece: kept as it comes, many small chunks would take six times their bytes.
async fn whole(mut body: Body, cap: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let broken =
            |error: axum::Error| ApiError::bad_request("body.incomplete", error.to_string());
        // Trailers are passed over.
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if data.len() > cap - whole.len() {
            return Err(too_large(cap));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn too_slow() -> ApiError {
    let status = StatusCode::REQUEST_TIMEOUT;
    ApiError::new(status, "body.too_slow", "The body did not come in time")
        .detail(format!("a body has {} s here", BODY_TIME.as_secs()))
}

fn too_large(cap: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body.too_large",
        "The body is too large",
    )
    .detail(format!("at most {cap} bytes are read here"))
}

/// Reads JSON. What is not JSON is 400; JSON of the wrong shape is 422 with the path.
pub(super) fn read<T: DeserializeOwned>(raw: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if error.inner().is_data() {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            ApiError::invalid(vec![violation("body.shape", path, message)])
        } else {
            not_json(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request("body.not_json", format!("the body is not JSON: {error}"))
}

/// What stands in the path for the endpoint's parameter.
#[derive(Debug)]
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<ControlPlane> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ControlPlane) -> Result<Self, ApiError> {
        let argument = endpoint(parts).argument(parts.uri.path());
        let invalid = || ApiError::bad_request("path.invalid", "the path is not UTF-8");
        argument.map(Self).ok_or_else(invalid)
    }
}

/// The row of the table that the request was found by.
pub(super) fn endpoint(parts: &Parts) -> &'static Endpoint {
    let endpoint = parts.extensions.get::<&'static Endpoint>();
    endpoint.expect("only a request whose endpoint is known gets to a handler")
}

/// A query.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<ControlPlane> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ControlPlane) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| ApiError::bad_request("query.invalid", error.body_text()))
    }
}

/// An answer that changed nothing.
pub(super) fn json(document: &impl Serialize) -> Response {
    Answer::json(Answer::OK, document).into_response()
}

/// A JSON document that was written before.
pub(super) fn prepared(document: &Bytes) -> Response {
    let json = [(CONTENT_TYPE, HeaderValue::from_static(JSON))];
    (json, document.clone()).into_response()
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        for (name, value) in [(LOCATION, self.location), (ETAG, self.etag)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
        if self.is_replay {
            headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}
