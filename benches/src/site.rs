//! A server with tenants and channels of its own, and what is pushed to them.

use std::fs;
use std::path::PathBuf;

use freshet_proto::delta::Delta;
use freshet_proto::envelope::{Event, EventBody, PublishKind, Published};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{ChannelId, EventId, Key, Revision, Version};
use freshet_proto::principal::Edition;
use freshet_proto::read::ConfigBody;
use freshet_proto::snapshot::Head;
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use serde_json::json;

use crate::children::{ChildError, Clients, Drain, Programs, Server, Transport};
use crate::clock;
use crate::http::{Connection, Request};

/// The key that is published; [`FILTER`] matches it.
const KEY: &str = "bench/k";
const FILTER: &str = "bench/*";
/// The demo's key that may do everything on the platform.
const PLATFORM_KEY: &str = "demo-admin-key";
/// Bytes of a value that make a filtered WebSocket frame about 200 bytes long. Source: the design,
/// section 9, for the 200; a frame of one key has some 130 bytes around its value.
const VALUE_BYTES: usize = 66;
/// Events of one request. Source: what `POST /v1/events` takes at most.
pub(crate) const BATCH_EVENTS_MAX: usize = 1_000;

/// Why a site cannot be made, or takes no events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Http(#[from] crate::http::HttpError),
    #[error("{path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
    #[error("{path} answered what is not known: {body}")]
    Answer { path: String, body: String },
    #[error("of {pushed} events not all were taken: {body}")]
    Refused { pushed: usize, body: String },
}

/// A server, its channels, and a connection to push through.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) channels: Vec<Chain>,
    pub(crate) push: Push,
    programs: Programs,
}

/// Where events go in.
#[derive(Debug)]
pub(crate) struct Push {
    connection: Connection,
}

/// A channel, and where its numbering is.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) channel: ChannelId,
    /// The key of its tenant.
    key: String,
    head: Head,
    /// Of each value, with its stamp.
    pub(crate) value_bytes: usize,
}

impl Site {
    /// Starts a server with `tenants` tenants, each with `apps` channels.
    ///
    /// # Errors
    ///
    /// [`SiteError`].
    pub(crate) fn start(
        programs: &Programs,
        (tenants, apps): (u32, u32),
        more: &[&str],
    ) -> Result<Self, SiteError> {
        let server = Server::start(programs, more)?;
        let mut api = Api(Connection::open(server.address)?);
        let mut channels = Vec::new();
        for tenant in 0..tenants {
            channels.extend(api.tenant(&format!("bench-{tenant}"), apps)?);
        }
        let push = Push {
            connection: Connection::open(server.address)?,
        };
        Ok(Self {
            server,
            channels,
            push,
            programs: programs.clone(),
        })
    }

    /// Another connection to push through, for a thread of its own.
    ///
    /// # Errors
    ///
    /// [`SiteError::Http`].
    pub(crate) fn another_push(&self) -> Result<Push, SiteError> {
        Ok(Push {
            connection: Connection::open(self.server.address)?,
        })
    }

    /// Makes a key that may write what a channel's tenant has.
    ///
    /// # Errors
    ///
    /// [`SiteError::Answer`].
    pub(crate) fn write_key(&self, channel: usize) -> Result<String, SiteError> {
        let tenant = &self.channels[channel].channel.tenant;
        let mut api = Api(Connection::open(self.server.address)?);
        api.key(tenant.as_str(), &format!("ecs:write:{tenant}"))
    }

    /// Clients that follow the channels `of` by turns.
    ///
    /// # Errors
    ///
    /// [`SiteError::File`].
    pub(crate) fn clients(
        &self,
        (what, transport): (&'static str, Transport),
        connections: u32,
        of: std::ops::Range<usize>,
    ) -> Result<Clients, SiteError> {
        let path = self.programs.folder.join(format!("{what}.channels"));
        let lines: String = self.channels[of].iter().map(Chain::line).collect();
        write(&path, &lines)?;
        Ok(Clients {
            what,
            channels: Some(path),
            keys: Some(FILTER),
            ..Clients::new(transport, connections)
        })
    }

    /// Starts clients and waits until each of them follows.
    ///
    /// # Errors
    ///
    /// [`SiteError::Child`].
    pub(crate) fn follow(&self, clients: &Clients) -> Result<Drain, SiteError> {
        let address = self.server.address;
        Ok(Drain::start_following(&self.programs, address, clients)?)
    }

    /// Changes the channels `of` at once, with one stamp.
    ///
    /// # Errors
    ///
    /// [`SiteError::Refused`].
    pub(crate) fn change(&mut self, of: std::ops::Range<usize>) -> Result<(), SiteError> {
        for chains in self.channels[of].chunks_mut(BATCH_EVENTS_MAX) {
            // A batch is made before its time begins.
            let stamp = clock::monotonic_micros();
            let events: Vec<Vec<u8>> = chains.iter_mut().map(|chain| chain.next(stamp)).collect();
            self.push.push(&events)?;
        }
        Ok(())
    }
}

fn write(path: &PathBuf, text: &str) -> Result<(), SiteError> {
    fs::write(path, text).map_err(|source| SiteError::File {
        path: path.display().to_string(),
        source,
    })
}

impl Push {
    /// Pushes events, and waits until they are taken.
    ///
    /// # Errors
    ///
    /// [`SiteError::Refused`] if not all were.
    pub(crate) fn push(&mut self, events: &[Vec<u8>]) -> Result<(), SiteError> {
        let body = events.join(&b'\n');
        let request = Request {
            path: "/v1/events",
            key: Some(PLATFORM_KEY),
            tenant: None,
            body: Some(&body),
        };
        let body = self.connection.ask(request)?;
        let told: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        if told["accepted"].as_u64() == Some(events.len() as u64) {
            return Ok(());
        }
        Err(SiteError::Refused {
            pushed: events.len(),
            body,
        })
    }
}

/// The control plane's interface, as far as a run needs it.
struct Api(Connection);

impl Api {
    fn post(
        &mut self,
        tenant: &str,
        path: &str,
        json: &serde_json::Value,
    ) -> Result<serde_json::Value, SiteError> {
        let body = self.0.ask(Request {
            path,
            key: Some(PLATFORM_KEY),
            tenant: Some(tenant),
            body: Some(json.to_string().as_bytes()),
        })?;
        serde_json::from_str(&body).map_err(|_| SiteError::Answer {
            path: path.to_owned(),
            body,
        })
    }

    fn key(&mut self, tenant: &str, scope: &str) -> Result<String, SiteError> {
        let path = "/v1/keys";
        let answer = self.post(tenant, path, &json!({"name": "bench", "scopes": [scope]}))?;
        let secret = answer["secret"].as_str().map(str::to_owned);
        secret.ok_or_else(|| SiteError::Answer {
            path: path.to_owned(),
            body: answer.to_string(),
        })
    }

    /// Makes a tenant with its channels.
    fn tenant(&mut self, name: &str, apps: u32) -> Result<Vec<Chain>, SiteError> {
        let edition = json!({"tenantId": name, "edition": "enterprise"});
        self.post("platform", "/v1/tenants", &edition)?;
        let key = self.key(name, &format!("ecs:read:{name}"))?;
        self.post(name, "/v1/environments", &json!({"environment": "prod"}))?;
        self.post(name, "/v1/sets", &json!({"set": "flags"}))?;
        let mut chains = Vec::new();
        for app in 0..apps {
            let app = format!("app-{app}");
            self.post(name, "/v1/sets/flags/apps", &json!({"app": app}))?;
            chains.push(self.chain(&key, &app)?);
        }
        Ok(chains)
    }

    /// Reads where a channel's numbering is.
    fn chain(&mut self, key: &str, app: &str) -> Result<Chain, SiteError> {
        let path = format!("/v1/config?env=prod&set=flags&app={app}");
        let request = Request {
            key: Some(key),
            ..Request::read(&path)
        };
        let body = self.0.ask(request)?;
        let answer = || SiteError::Answer {
            path: path.clone(),
            body: body.clone(),
        };
        let read = ConfigBody::decode(body.as_bytes()).map_err(|_| answer())?;
        let head = read.head;
        Ok(Chain {
            channel: ChannelId {
                tenant: head.tenant_id,
                environment: head.environment,
                set: head.set,
                app: head.app,
            },
            key: key.to_owned(),
            value_bytes: VALUE_BYTES,
            head: Head {
                epoch: head.epoch,
                revision: head.revision,
                version: head.version,
                hash: head.hash.ok_or_else(answer)?,
                signature: head.signature.ok_or_else(answer)?,
                issued_at: head.issued_at,
                trace: None,
            },
        })
    }
}

impl Chain {
    /// `KEY TENANT ENVIRONMENT SET APP`.
    fn line(&self) -> String {
        let ChannelId {
            tenant,
            environment,
            set,
            app,
        } = &self.channel;
        format!("{} {tenant} {environment} {set} {app}\n", self.key)
    }

    /// The key of its tenant, which may read.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Where its numbering is.
    pub(crate) const fn head(&self) -> &Head {
        &self.head
    }

    /// Where its subscribers are, as a command wants it.
    pub(crate) fn cursor(&self) -> String {
        format!("{}-{}", self.head.epoch, self.head.revision)
    }

    /// The next event, as bytes: the one key has a new value, which carries `stamp`.
    pub(crate) fn next(&mut self, stamp: u64) -> Vec<u8> {
        self.next_of(PublishKind::Publish, stamp)
    }

    /// The next event, of a kind. Hash and signature have the form and the length of real ones, and
    /// are not right: only clients could tell, and these do not look.
    pub(crate) fn next_of(&mut self, kind: PublishKind, stamp: u64) -> Vec<u8> {
        let previous = self.head.revision;
        let number = previous.get() + 1;
        let time = Timestamp::from_millis(clock::unix_millis()).expect("it is not the year 10000");
        self.head = Head {
            revision: Revision::new(number).expect("revisions are not used up"),
            version: Version::new(&format!("v{number}")).expect("a label"),
            hash: ContentHash::of([]),
            issued_at: time,
            ..self.head.clone()
        };
        let event = Event {
            id: EventId::new(&format!("{}-{number}", self.channel.app)).expect("an id"),
            tenant: self.channel.tenant.clone(),
            edition: Edition::Enterprise,
            occurred_at: time,
            body: EventBody::Published(Published {
                channel: self.channel.clone(),
                previous,
                head: self.head.clone(),
                kind,
                delta: Some(Delta {
                    set: [(
                        Key::new(KEY).expect("a key"),
                        value(stamp, self.value_bytes),
                    )]
                    .into(),
                    del: Vec::new(),
                }),
            }),
        };
        event.encode()
    }
}

/// A text of at least 17 bytes, with a stamp: `~` and sixteen digits.
fn value(stamp: u64, bytes: usize) -> Value {
    let width = bytes.saturating_sub(17);
    let text = format!("\"~{stamp:016}{:x<width$}\"", "");
    Value::from_json(text.into()).expect("a text")
}
