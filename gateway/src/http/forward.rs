//! Everything else under `/v1`: passed on to the control plane.

use std::rc::Rc;

use bytes::Bytes;
use freshet_proto::principal::KeyDigest;
use freshet_proto::problem::Problem;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::answer::{self, Answer, Refusal};
use super::discard::discard;
use crate::shard::Shell;

/// Headers that belong to one connection. Source: RFC 9110 section 7.6.1.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

pub(super) async fn forward(
    shell: &Rc<Shell>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let config = &shell.services.config;
    let is_import = request.uri().path() == "/v1/import";
    let bytes_max = if is_import {
        config.import_bytes_max
    } else {
        config.body_bytes_max
    };
    let (mut head, mut body) = request.into_parts();
    let client = super::client(&head.extensions);
    // The control plane checks the key; who guesses there guesses here.
    if let Some(key) = answer::token(&head.headers)
        && let Err(limit) = shell.services.auth.admit_key(&KeyDigest::of(key), client)
    {
        discard(body, config.control_timeout);
        return Err(limit.into());
    }
    let too_large = || {
        let problem = Problem::new(413, "request.too_large", "Body too large");
        Refusal::from(problem.with_detail(format!("a body may have {bytes_max} bytes here")))
    };
    // Refused before anything is kept, if the client says how much there is.
    let announced = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse().ok())
        .is_some_and(|bytes: usize| bytes > bytes_max)
    {
        discard(body, config.control_timeout);
        return Err(too_large());
    }
    let whole = Limited::new(&mut body, bytes_max).collect();
    let body = match tokio::time::timeout(config.control_timeout, whole).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(body, config.control_timeout);
            return Err(too_large());
        }
        Ok(Err(_)) => return Err(Refusal::bad_request("the body broke off")),
        Err(_) => {
            discard(body, config.control_timeout);
            let problem = Problem::new(408, "request.timeout", "Request timeout");
            return Err(problem.with_detail("the body did not come in time").into());
        }
    };
    remove_hop_by_hop(&mut head.headers);
    let answer = shell
        .services
        .origin
        .forward(Request::from_parts(head, body))
        .await?;
    let (mut head, body): (_, Bytes) = answer.into_parts();
    if head.status == StatusCode::UNAUTHORIZED {
        shell.services.admission.count_key_failure(client);
    }
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, answer::whole(body)))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
