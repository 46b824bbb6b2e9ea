//! The control plane's documents that need no key, answered from a copy.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
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
    copies: std::sync::Mutex<HashMap<String, Slot>>,
}

/// What is known of one document. Held while it is asked for: the others who want it wait, and find it,
/// or that there is none.
type Slot = Arc<Mutex<Known>>;

#[derive(Debug, Default)]
struct Known {
    copy: Option<Copy>,
    /// It is not asked for before.
    fresh_until: Time,
}

#[derive(Clone, Debug)]
struct Copy {
    kind: HeaderValue,
    body: Bytes,
}

impl PublicDocuments {
    /// Nothing was copied yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            copies: std::sync::Mutex::default(),
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
        let slot = self.slot(path);
        let mut known = slot.lock().await;
        if self.clock.now() >= known.fresh_until {
            let asked = ask(origin, path).await;
            let now = self.clock.now();
            match asked {
                Ok(copy) => {
                    known.copy = Some(copy);
                    known.fresh_until = now + FRESH;
                }
                Err(error) => {
                    known.fresh_until = now + FRESH_AFTER_FAILURE;
                    if known.copy.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        let none = || OriginError::Unreachable("it gave no answer a moment ago".to_owned());
        let Copy { kind, body } = known.copy.clone().ok_or_else(none)?;
        Ok((kind, body))
    }

    fn slot(&self, path: &str) -> Slot {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(copies.entry(path.to_owned()).or_default())
    }
}

async fn ask(origin: &Origin, path: &str) -> Result<Copy, OriginError> {
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
    let kind = head.headers.get(CONTENT_TYPE).cloned().unwrap_or(json);
    Ok(Copy { kind, body })
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
        let slot = documents.slot(gone);
        let until = slot.lock().await.fresh_until;
        assert!(until > Time::ZERO, "nobody is asked again for a while");
        assert!(documents.document(&origin, gone).await.is_err());
        assert_eq!(slot.lock().await.fresh_until, until);

        let kind = HeaderValue::from_static("text/plain");
        let body = Bytes::from_static(b"old");
        *slot.lock().await = Known {
            copy: Some(Copy { kind, body }),
            fresh_until: Time::ZERO,
        };
        let (_, served) = documents.document(&origin, gone).await.unwrap();
        assert_eq!(served, "old");

        // While one is waited for, another is served.
        let _asking = slot.lock().await;
        documents.document(&origin, path).await.unwrap();
    }
}
