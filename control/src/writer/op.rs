//! What can be asked of the writer, and what it answers.

use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::PublishKind;
use freshet_proto::ids::{AppName, ChannelId, Environment, Revision, SetName, TenantId, TraceId};
use freshet_proto::principal::{Edition, KeyDigest, Scope};
use freshet_proto::timestamp::Timestamp;
use serde::Serialize;

use crate::change::{Changes, Target};
use crate::document::{DraftPatch, PublishBody};
use crate::error::WriteError;

/// One write, with who asks.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) actor: Actor,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) op: Op,
}

impl Request {
    /// The same as often as it comes.
    pub(crate) fn without_idempotency(self) -> Self {
        Self {
            idempotency: None,
            ..self
        }
    }
}

/// Who writes, and for which tenant.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    /// The key's id; never the key.
    pub(crate) id: String,
    /// `key` or `system`.
    pub(crate) kind: &'static str,
    pub(crate) tenant: TenantId,
    pub(crate) trace: TraceId,
}

/// The caller's name for this request, and what the request was.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    pub(crate) key: String,
    /// SHA-256 over method, path, query and body.
    pub(crate) request: [u8; 32],
}

/// What `If-Match` demands of a channel's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// That there is one.
    Any,
    /// That it is one of these.
    OneOf(Vec<Cursor>),
}

/// Each kind of write.
#[derive(Debug)]
pub(crate) enum Op {
    Publish {
        target: Target,
        changes: Changes,
        kind: PublishKind,
        reason: Option<String>,
        if_match: Option<IfMatch>,
    },
    Rollback {
        channel: ChannelId,
        to: Revision,
        reason: Option<String>,
        if_match: Option<IfMatch>,
    },
    CreateDraft {
        id: String,
        body: PublishBody,
    },
    ExtendDraft {
        id: String,
        patch: DraftPatch,
    },
    ValidateDraft {
        id: String,
    },
    PublishDraft {
        id: String,
        if_match: Option<IfMatch>,
    },
    PutTenant {
        tenant: TenantId,
        edition: Edition,
        /// None: it keeps the one that it has.
        status: Option<TenantStatus>,
    },
    CreateEnvironment {
        environment: Environment,
        if_exists: IfExists,
    },
    CreateSet {
        set: SetName,
        if_exists: IfExists,
    },
    CreateApp {
        set: SetName,
        app: AppName,
        if_exists: IfExists,
    },
    CreateKey(NewKey),
    ChangeKey {
        id: String,
        change: KeyChange,
    },
    RevokeKey {
        id: String,
    },
    /// Each role and the key that has it.
    PutOperatorKeys(Vec<(Scope, KeyDigest)>),
    ForgetKeys(Vec<KeyDigest>),
    StartImport {
        id: String,
        total: usize,
    },
    AdvanceImport(Progress),
    MarkSeeded,
}

/// A key to store.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) id: String,
    pub(crate) digest: KeyDigest,
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    /// When it ends by itself.
    pub(crate) not_after: Option<Timestamp>,
    pub(crate) if_exists: IfExists,
}

/// What changes of a key; what is none stays.
#[derive(Debug)]
pub(crate) struct KeyChange {
    pub(crate) name: Option<String>,
    pub(crate) scopes: Option<Vec<Scope>>,
    /// None within: it has no end any more.
    pub(crate) not_after: Option<Option<Timestamp>>,
}

/// How far an import is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: String,
    pub(crate) done: usize,
    pub(crate) status: &'static str,
    /// The problem document that ended it.
    pub(crate) problem: Option<String>,
}

/// Whether a tenant's keys open anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TenantStatus {
    Active,
    Suspended,
}

impl TenantStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// What happens when the thing to create is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfExists {
    /// The write is refused.
    Refuse,
    /// It is left as it is.
    Keep,
}

/// What the writer says to one write.
pub(crate) type Reply = Result<Answer, WriteError>;

/// The answer of a write that was done, ready to be sent and to be stored for a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: Vec<u8>,
    pub(crate) location: Option<String>,
    pub(crate) etag: Option<String>,
    /// It was stored under the request's `Idempotency-Key`; nothing was done this time.
    pub(crate) is_replay: bool,
    /// The write was tried to see what comes of it; it is undone.
    pub(crate) is_trial: bool,
}

impl Answer {
    /// Source: RFC 9110 section 15.
    pub(crate) const OK: u16 = 200;
    pub(crate) const CREATED: u16 = 201;
    pub(crate) const ACCEPTED: u16 = 202;

    pub(crate) fn json(status: u16, document: &impl Serialize) -> Self {
        Self {
            status,
            body: serde_json::to_vec(document).expect("answers have text keys and checked values"),
            location: None,
            etag: None,
            is_replay: false,
            is_trial: false,
        }
    }

    /// Of a command that nobody waits for.
    pub(crate) const fn none() -> Self {
        Self {
            status: Self::OK,
            body: Vec::new(),
            location: None,
            etag: None,
            is_replay: false,
            is_trial: false,
        }
    }

    pub(crate) fn with_location(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    pub(crate) fn with_etag(mut self, head: Cursor) -> Self {
        self.etag = Some(etag(head));
        self
    }

    pub(crate) const fn trial(mut self) -> Self {
        self.is_trial = true;
        self
    }
}

/// The strong entity tag of a head.
pub(crate) fn etag(head: Cursor) -> String {
    format!("\"{head}\"")
}
