//! Bodies that nobody wants: read on for a while, so that the answer arrives.
//!
//! A socket that is closed with unread bytes in it is reset, and a reset eats the answer on its way.
//! A client that writes its whole body before it reads would see a broken pipe and no answer.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};

/// Bytes of an unwanted body that are read and thrown away. When there are more, the connection is
/// cut. Source: arbitrary, because it is a few times the largest body of a publish.
const DISCARD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Reads on in the background what is left of a body, if there is something left.
pub(super) fn discard(body: Incoming, timeout: Duration) {
    if body.is_end_stream() {
        return;
    }
    // The task ends with the body, the bytes, or the time.
    tokio::task::spawn_local(async move {
        let mut body = Limited::new(body, DISCARD_BYTES_MAX);
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        // What it was does not matter to anyone.
        drop(tokio::time::timeout(timeout, rest).await);
    });
}
