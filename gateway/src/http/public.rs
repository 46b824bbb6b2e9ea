//! The control plane's documents that need no key, answered from a copy.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use freshet_fanout::time::Time;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::origin::{Origin, OriginError};

/// How old a copy may be. Source: arbitrary, because the documents change with the program and with
/// the signing key, and a key is announced before it signs.
const FRESH: Duration = Duration::from_secs(60);
/// How long an old copy serves after a question that was not answered. Source: arbitrary, because a
/// control plane that is away is not asked for each request.
const FRESH_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Copies by path. As many as there are public endpoints.
#[derive(Debug)]
pub(crate) struct PublicDocuments {
    clock: Clock,
    /// Held while one is asked for: the others wait, and find it.
    copies: Mutex<HashMap<String, Copy>>,
}

#[derive(Debug)]
struct Copy {
    kind: HeaderValue,
    body: Bytes,
    fresh_until: Time,
}

impl PublicDocuments {
    /// Nothing was copied yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            copies: Mutex::default(),
        }
    }

    /// The media type and the bytes of a public endpoint's answer.
    ///
    /// # Errors
    ///
    /// [`OriginError`], while there is no copy at all.
    pub(super) async fn document(
        &self,
        origin: &Origin,
        path: &str,
    ) -> Result<(HeaderValue, Bytes), OriginError> {
        let mut copies = self.copies.lock().await;
        let held = copies.get(path);
        if let Some(copy) = held.filter(|copy| self.clock.now() < copy.fresh_until) {
            return Ok((copy.kind.clone(), copy.body.clone()));
        }
        let asked = ask(origin, path).await;
        let now = self.clock.now();
        let copy = match (asked, copies.get_mut(path)) {
            (Ok((kind, body)), _) => {
                let fresh_until = now + FRESH;
                Copy {
                    kind,
                    body,
                    fresh_until,
                }
            }
            (Err(_), Some(old)) => {
                old.fresh_until = now + FRESH_AFTER_FAILURE;
                return Ok((old.kind.clone(), old.body.clone()));
            }
            (Err(error), None) => return Err(error),
        };
        let answer = (copy.kind.clone(), copy.body.clone());
        copies.insert(path.to_owned(), copy);
        Ok(answer)
    }
}

async fn ask(origin: &Origin, path: &str) -> Result<(HeaderValue, Bytes), OriginError> {
    let request = Request::get(path).body(Bytes::new());
    let request = request.map_err(|error| OriginError::Broken(error.to_string()))?;
    let (head, body) = origin.forward(request, ()).await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(OriginError::Refused {
            status: head.status.as_u16(),
            path: path.to_owned(),
        });
    }
    let json = HeaderValue::from_static("application/json");
    Ok((
        head.headers.get(CONTENT_TYPE).cloned().unwrap_or(json),
        body,
    ))
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_public_document_is_asked_for_once_and_serves_while_there_is_no_other() {
        let (control, _data) = testing::demo().await;
        let runtimes = (Handle::current(), Handle::current());
        let origin = Origin::embedded(runtimes, control);
        let documents = PublicDocuments::new(Clock::start());
        let path = "/v1/keys/signing";
        let (kind, first) = documents.document(&origin, path).await.unwrap();
        assert_eq!(kind, "application/json");
        let (_, again) = documents.document(&origin, path).await.unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr(), "it is the copy");

        // Whoever is asked for this answers 404.
        let gone = "/v1/gone";
        assert!(documents.document(&origin, gone).await.is_err());
        let old = Copy {
            kind: HeaderValue::from_static("text/plain"),
            body: Bytes::from_static(b"old"),
            fresh_until: Time::ZERO,
        };
        documents.copies.lock().await.insert(gone.to_owned(), old);
        let (_, served) = documents.document(&origin, gone).await.unwrap();
        assert_eq!(served, "old");
        let until = documents.copies.lock().await[gone].fresh_until;
        assert!(until > Time::ZERO, "nobody is asked again for a while");
    }
}
