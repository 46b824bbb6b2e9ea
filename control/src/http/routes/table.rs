//! The rows.

use axum::handler::Handler;
use http::Method;

use super::{About, Access, Endpoint, Payload, Serve};
use crate::http::{admin, channels, drafts, history, import, internal, keys, openapi};

const CHANNEL: [(&str, &str); 3] = [
    ("!env", "The environment."),
    ("!set", "The config set."),
    ("!app", "The app."),
];
const PAGE_TOKEN: (&str, &str) = ("pageToken", "The nextPageToken of the page before.");
const PAGE_SIZE: (&str, &str) = ("pageSize", "Items of one page: 50, at most 500.");

/// A row that the control plane answers with a handler. A macro, because each handler is a type of
/// its own, and a row holds a plain function.
macro_rules! served {
    ($method:ident $path:literal, $access:ident, $handler:path, $summary:literal) => {
        endpoint(Method::$method, $path, Access::$access, $summary)
            .served(|request, plane| Box::pin(Handler::call($handler, request, plane)))
    };
}

/// A row that the gateway answers itself, on the same port.
macro_rules! of_gateway {
    ($method:ident $path:literal, $access:ident, $summary:literal) => {
        endpoint(Method::$method, $path, Access::$access, $summary)
    };
}

const fn endpoint(
    method: Method,
    path: &'static str,
    access: Access,
    summary: &'static str,
) -> Endpoint {
    Endpoint {
        method,
        path,
        access,
        payload: Payload::Nothing,
        serve: None,
        about: About {
            summary,
            query: &[],
            takes: None,
            answer: (200, None),
        },
    }
}

impl Endpoint {
    const fn served(mut self, serve: Serve) -> Self {
        self.serve = Some(serve);
        self
    }

    const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.about.query = query;
        self
    }

    const fn takes(mut self, schema: &'static str) -> Self {
        self.payload = Payload::Document;
        self.about.takes = Some(schema);
        self
    }

    const fn imports(mut self, schema: &'static str) -> Self {
        self.payload = Payload::Import;
        self.about.takes = Some(schema);
        self
    }

    const fn takes_events(mut self) -> Self {
        self.payload = Payload::Events;
        self
    }

    const fn answers(mut self, status: u16, schema: &'static str) -> Self {
        self.about.answer = (status, Some(schema));
        self
    }
}

/// Every endpoint there is.
#[rustfmt::skip] // one endpoint a paragraph, its summary on a line of its own
pub(in crate::http) static ENDPOINTS: &[Endpoint] = &[
    served!(POST "/v1/config/publish", Write, channels::publish,
        "Publishes changes to a layer, or a draft. Honours If-Match and Idempotency-Key.")
        .takes("PublishBody").answers(200, "PublishAnswer"),
    served!(POST "/v1/config/rollback", Write, channels::rollback,
        "Makes a new revision with the content of an old one. Honours If-Match and Idempotency-Key.")
        .takes("RollbackBody").answers(200, "PublishAnswer"),
    served!(GET "/v1/config/versions", Read, history::versions,
        "A channel's versions, newest first.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2],
            ("since", "Only those issued since this time or day."), PAGE_TOKEN, PAGE_SIZE])
        .answers(200, "VersionsAnswer"),
    served!(GET "/v1/config/diff", Read, history::diff,
        "What differs between two revisions.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2], ("!from", "A revision."), ("!to", "A revision.")])
        .answers(200, "DiffAnswer"),
    served!(GET "/v1/snapshots/{id}", Read, history::snapshot,
        "A channel at a revision, signed. The ids stand in the versions.")
        .answers(200, "SnapshotAnswer"),
    served!(POST "/v1/drafts", Write, drafts::create,
        "Creates a draft.")
        .takes("PublishBody").answers(201, "DraftAnswer"),
    served!(GET "/v1/drafts/{id}", Write, drafts::read,
        "A draft.")
        .answers(200, "DraftAnswer"),
    served!(PATCH "/v1/drafts/{id}", Write, drafts::extend,
        "Adds changes to a draft.")
        .takes("DraftPatch").answers(200, "DraftAnswer"),
    served!(POST "/v1/drafts/{id}:validate", Write, drafts::validate,
        "Tries to publish a draft and undoes it.")
        .answers(200, "ValidationAnswer"),
    served!(POST "/v1/drafts/{id}:publish", Write, drafts::publish,
        "Publishes a draft.")
        .answers(200, "PublishAnswer"),
    served!(POST "/v1/import", Write, import::start,
        "Takes a bundle of up to 32 MiB; Location tells where to ask how far it is.")
        .imports("ImportBody").answers(202, "ImportAnswer"),
    served!(GET "/v1/import/{id}", Write, import::status,
        "How far an import is.")
        .answers(200, "ImportAnswer"),
    served!(GET "/v1/audit", Read, history::audit,
        "Who wrote what, newest first.")
        .query(&[("from", "A time or a day."), ("to", "A time or a day, not included."),
            ("action", "Only this action."), PAGE_TOKEN, PAGE_SIZE])
        .answers(200, "AuditAnswer"),
    served!(GET "/v1/tenants", Platform, admin::tenants,
        "All tenants.")
        .answers(200, "TenantList"),
    served!(POST "/v1/tenants", Platform, admin::put_tenant,
        "Creates a tenant, or gives one another edition or status.")
        .takes("TenantBody").answers(201, "ChannelList"),
    served!(GET "/v1/environments", Read, admin::environments,
        "The tenant's environments.")
        .answers(200, "ItemList"),
    served!(POST "/v1/environments", Admin, admin::create_environment,
        "Creates an environment and its channels.")
        .takes("EnvironmentBody").answers(201, "ChannelList"),
    served!(GET "/v1/sets", Read, admin::sets,
        "The tenant's config sets.")
        .answers(200, "ItemList"),
    served!(POST "/v1/sets", Admin, admin::create_set,
        "Creates a config set.")
        .takes("SetBody").answers(201, "ChannelList"),
    served!(GET "/v1/sets/{set}/apps", Read, admin::apps,
        "The apps of a config set.")
        .answers(200, "ItemList"),
    served!(POST "/v1/sets/{set}/apps", Admin, admin::create_app,
        "Creates an app and its channels.")
        .takes("AppBody").answers(201, "ChannelList"),
    served!(GET "/v1/layers", Read, admin::layers,
        "What stands in the layers of a config set.")
        .query(&[("!set", "The config set.")]).answers(200, "LayersAnswer"),
    served!(GET "/v1/keys", Admin, keys::list,
        "The tenant's API keys, without secrets.")
        .answers(200, "KeyList"),
    served!(POST "/v1/keys", Admin, keys::create,
        "Creates an API key; shows its secret this once.")
        .takes("KeyBody").answers(201, "KeyAnswer"),
    served!(PATCH "/v1/keys/{id}", Admin, keys::change,
        "Changes an API key's scopes, name or end; who shows it is treated so at once.")
        .takes("KeyPatch").answers(200, "KeyAnswer"),
    served!(DELETE "/v1/keys/{id}", Admin, keys::revoke,
        "Revokes an API key."),
    served!(GET "/v1/keys/signing", Public, keys::signing,
        "The public key that signs revisions, as a JWK set."),
    served!(GET "/v1/openapi.json", Public, openapi::document,
        "This document."),
    served!(GET "/v1/internal/snapshot", Gateway, internal::snapshot,
        "A channel for a gateway.")
        .query(&[("!tenant", "The tenant."), ("!environment", "The environment."),
            ("!set", "The config set."), ("!app", "The app.")]),
    served!(POST "/v1/internal/grants", Gateway, internal::grants,
        "How up to 1,000 grants stand, by their ids, in the order of the ids.")
        .takes("GrantsBody"),
    of_gateway!(GET "/v1/config", Read,
        "The effective configuration. Strong ETag, If-None-Match, 304; wait= holds the request until it changes.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2],
            ("keys", "Exact keys or prefix*, repeatable."), ("wait", "How long to wait, as in 30s.")]),
    of_gateway!(GET "/v1/stream", Read,
        "WebSocket with the subprotocol ecs.refresh.v1; the key may come as access_token or in an auth frame."),
    of_gateway!(GET "/v1/stream/changes", Read,
        "Server-sent events; Last-Event-ID resumes on any node.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2], ("keys", "Exact keys or prefix*, repeatable."),
            ("access_token", "The key, where a header is not possible.")]),
    of_gateway!(POST "/v1/events", Events,
        "Change events for this gateway: application/x-ndjson, one a line, at most 1,000.")
        .takes_events(),
    of_gateway!(GET "/v1/config/convergence", Read,
        "How many subscribers stand at which revision.")
        .query(&CHANNEL),
];
