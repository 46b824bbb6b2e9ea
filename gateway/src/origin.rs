//! What answers for a channel or a key that is not in memory: the control plane, in this process
//! or over HTTP.

mod remote;

use std::sync::Arc;

use bytes::Bytes;
use freshet_control::ControlPlane;
use freshet_proto::grant::{GrantId, Standing};
use freshet_proto::ids::ChannelId;
use freshet_proto::snapshot::ChannelSnapshot;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
pub use remote::{KeyError, Remote};
use tokio::runtime::Handle;
use tower::ServiceExt as _;

/// Largest answer that is passed on. Source: the largest import, 32 MiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a gateway asks for what it does not hold. A clone asks the same.
///
/// Every question runs on the supporting runtime, and what clients ask on one of its own; never on a
/// shard.
#[derive(Clone, Debug)]
pub struct Origin {
    runtime: Handle,
    /// Where clients' requests run.
    forwards: Handle,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Embedded {
        control: ControlPlane,
        /// Made once; a clone of it answers a request.
        router: axum::Router,
    },
    Remote(Arc<Remote>),
}

/// Why there is no answer. All may pass; the caller serves what it holds or asks again later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// No connection, or none in time.
    #[error("the control plane does not answer: {0}")]
    Unreachable(String),
    /// An answer that is not what was asked for.
    #[error("the control plane answered {status} to {path}")]
    Refused {
        /// The status.
        status: u16,
        /// What was asked.
        path: String,
    },
    /// An answer that does not decode, or a store that fails.
    #[error("the control plane's answer cannot be used: {0}")]
    Broken(String),
    /// The process is ending.
    #[error("the process is ending")]
    Ending,
}

impl Origin {
    /// The control plane of this process.
    pub fn embedded((runtime, forwards): (Handle, Handle), control: ControlPlane) -> Self {
        let router = control.router();
        Self {
            runtime,
            forwards,
            place: Place::Embedded { control, router },
        }
    }

    /// A control plane elsewhere.
    pub fn remote((runtime, forwards): (Handle, Handle), remote: Remote) -> Self {
        Self {
            runtime,
            forwards,
            place: Place::Remote(Arc::new(remote)),
        }
    }

    /// A channel's snapshot; none if there is no such channel.
    ///
    /// # Errors
    ///
    /// [`OriginError`].
    pub async fn snapshot(
        &self,
        channel: &ChannelId,
    ) -> Result<Option<ChannelSnapshot>, OriginError> {
        let channel = channel.clone();
        match self.place.clone() {
            Place::Embedded { control, .. } => {
                run(&self.runtime, async move {
                    let snapshot = control.snapshot(&channel).await;
                    snapshot.map_err(|error| OriginError::Broken(error.to_string()))
                })
                .await
            }
            Place::Remote(remote) => {
                run(
                    &self.runtime,
                    async move { remote.snapshot(&channel).await },
                )
                .await
            }
        }
    }

    /// How grants stand, in the order of `ids`; at most
    /// [`GRANTS_PER_QUESTION_MAX`](freshet_proto::grant::GRANTS_PER_QUESTION_MAX) of them.
    ///
    /// # Errors
    ///
    /// [`OriginError`].
    pub async fn standings(&self, ids: Vec<GrantId>) -> Result<Vec<Standing>, OriginError> {
        match self.place.clone() {
            Place::Embedded { control, .. } => {
                run(&self.runtime, async move {
                    let standings = control.standings(&ids).await;
                    standings.map_err(|error| OriginError::Broken(error.to_string()))
                })
                .await
            }
            Place::Remote(remote) => {
                run(&self.runtime, async move { remote.standings(ids).await }).await
            }
        }
    }

    /// Passes a request of a client on and brings back the answer. `hold` is kept until there is
    /// one, also when nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// [`OriginError`].
    pub async fn forward(
        &self,
        request: Request<Bytes>,
        hold: impl Send + 'static,
    ) -> Result<Response<Bytes>, OriginError> {
        let place = self.place.clone();
        let question = async move {
            let answer = place.pass_on(request).await;
            drop(hold);
            answer
        };
        // Not where the hub, the writer and the relay run: clients may ask for much.
        run(&self.forwards, question).await
    }
}

impl Place {
    async fn pass_on(self, request: Request<Bytes>) -> Result<Response<Bytes>, OriginError> {
        match self {
            Self::Embedded { router, .. } => {
                let request = request.map(|body| axum::body::Body::new(Full::new(body)));
                let Ok(answer) = router.oneshot(request).await;
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| OriginError::Broken(error.to_string()))?;
                Ok(Response::from_parts(head, body.to_bytes()))
            }
            Self::Remote(remote) => remote.forward(request).await,
        }
    }
}

async fn run<T: Send + 'static>(
    runtime: &Handle,
    question: impl Future<Output = Result<T, OriginError>> + Send + 'static,
) -> Result<T, OriginError> {
    // The task is awaited at once; it is on its own only so that the other runtime runs it.
    runtime
        .spawn(question)
        .await
        .map_err(|_| OriginError::Ending)?
}
