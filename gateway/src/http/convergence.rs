//! `GET /v1/config/convergence`: how many subscribers stand at which revision.

use std::collections::BTreeMap;
use std::rc::Rc;

use freshet_proto::cursor::Cursor;
use freshet_proto::ids::Revision;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use serde::Serialize;
use tokio::sync::oneshot;

use super::answer::{self, Answer};
use super::query::ChannelQuery;
use crate::refusal::Refusal;
use crate::shard::{Mail, Shell};

/// The body, summed over the shards of this node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Convergence {
    head: Cursor,
    subscribers: u64,
    at_head: u64,
    revisions: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    revision: Revision,
    /// Subscribers that were sent this revision and nothing newer.
    subscribers: u64,
    /// Subscribers that said they run with it and nothing newer.
    applied: u64,
}

pub(super) async fn convergence<B>(
    shell: &Rc<Shell>,
    request: &Request<B>,
) -> Result<Answer, Refusal> {
    let caller = super::read::caller(shell, request).await?;
    shell.services.admission.admit_read(caller.principal())?;
    let query = ChannelQuery::parse(request.uri().query().unwrap_or_default())?;
    let channel = query.channel(&caller.principal().tenant);
    let mut head = shell.loaded(&caller, &channel).await?;
    let caller = shell.services.auth.confirm(caller).await?;
    answer::check_read(caller.principal())?;
    let mut shares: BTreeMap<Revision, (u64, u64)> = BTreeMap::new();
    for mailbox in &shell.services.shards {
        let (answer, convergence) = oneshot::channel();
        let mail = Mail::Convergence {
            channel: channel.clone(),
            answer,
        };
        mailbox.send(mail).await.map_err(|_| Refusal::draining())?;
        let convergence = convergence.await.map_err(|_| Refusal::draining())?;
        if let Some(other) = convergence.head
            && (other.epoch, other.revision) > (head.epoch, head.revision)
        {
            head = other;
        }
        for share in convergence.revisions {
            let sum = shares.entry(share.revision).or_default();
            sum.0 += share.subscribers;
            sum.1 += share.applied;
        }
    }
    let body = Convergence {
        head,
        subscribers: shares.values().map(|(subscribers, _)| subscribers).sum(),
        at_head: shares
            .get(&head.revision)
            .map_or(0, |(subscribers, _)| *subscribers),
        revisions: shares
            .into_iter()
            .rev()
            .map(|(revision, (subscribers, applied))| Share {
                revision,
                subscribers,
                applied,
            })
            .collect(),
    };
    let json = serde_json::to_vec(&body).expect("numbers only");
    let mut answer = Response::new(answer::whole(json.into()));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}
