//! Bodies that nobody wants: read on for a moment, so that the answer arrives.
//!
//! A socket that is closed with unread bytes in it is reset, and a reset eats the answer on its way.
//! A client that writes its whole body before it reads would see a broken pipe and no answer.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// Bytes of an unwanted body that are read and thrown away. When there are more, the connection is
/// cut. Source: arbitrary, because it is what a socket usually holds, and nobody is known yet.
const DISCARD_BYTES_MAX: usize = 64 * 1024;
/// How long they may take. Source: arbitrary, because it is a few round trips.
const DISCARD_WAIT: Duration = Duration::from_secs(1);

/// Reads on in the background what is left of a body, if there is something left.
pub(super) fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    // The task ends with the body, the bytes, or the time.
    tokio::task::spawn_local(async move {
        let mut bytes = 0;
        let rest = async {
            while bytes <= DISCARD_BYTES_MAX
                && let Some(Ok(frame)) = body.frame().await
            {
                bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            }
        };
        // What it was does not matter to anyone.
        tokio::time::timeout(DISCARD_WAIT, rest).await.ok();
    });
}
