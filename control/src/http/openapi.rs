//! The description of the interface: one table of endpoints, and the schemas of the documents.

use std::sync::LazyLock;

use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Info, ObjectBuilder, Ref, Required, ResponseBuilder, Type};

use super::body::json;
use crate::document;

/// The schemas; the paths come from [`ENDPOINTS`].
#[derive(OpenApi)]
#[openapi(components(schemas(
    document::PublishBody,
    document::PublishAnswer,
    document::RollbackBody,
    document::DraftPatch,
    document::DraftAnswer,
    document::ValidationAnswer,
    document::VersionsAnswer,
    document::DiffAnswer,
    document::SnapshotAnswer,
    document::ImportBody,
    document::ImportAnswer,
    document::AuditAnswer,
    document::TenantBody,
    document::TenantList,
    document::EnvironmentBody,
    document::SetBody,
    document::AppBody,
    document::ItemList,
    document::ChannelList,
    document::KeyBody,
    document::KeyAnswer,
    document::KeyList,
    document::LayersAnswer,
)))]
struct Schemas;

/// One endpoint as it is described.
struct Endpoint {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    /// The scope that is needed; none if no key is.
    scope: Option<&'static str>,
    /// Parameters of the query: a name and what it says. A `!` before the name: it is needed.
    query: &'static [(&'static str, &'static str)],
    /// The schema of the body.
    body: Option<&'static str>,
    /// The status of success, and the schema of its document.
    answer: (u16, Option<&'static str>),
}

const READ: Option<&str> = Some("ecs:read:{tenant}");
const WRITE: Option<&str> = Some("ecs:write:{tenant}");
const ADMIN: Option<&str> = Some("ecs:admin:{tenant}");
const PLATFORM: Option<&str> = Some("ecs:admin:platform");
const GATEWAY: Option<&str> = Some("ecs:gateway:platform");
const EVENTS: Option<&str> = Some("ecs:events:platform");

const CHANNEL: [(&str, &str); 3] = [
    ("!env", "The environment."),
    ("!set", "The config set."),
    ("!app", "The app."),
];
const PAGE_TOKEN: (&str, &str) = ("pageToken", "The nextPageToken of the page before.");
const PAGE_SIZE: (&str, &str) = ("pageSize", "Items of one page: 50, at most 500.");

const fn endpoint(
    method: HttpMethod,
    path: &'static str,
    scope: Option<&'static str>,
    summary: &'static str,
) -> Endpoint {
    Endpoint {
        method,
        path,
        summary,
        scope,
        query: &[],
        body: None,
        answer: (200, None),
    }
}

impl Endpoint {
    const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    const fn takes(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    const fn answers(mut self, status: u16, schema: &'static str) -> Self {
        self.answer = (status, Some(schema));
        self
    }
}

const ENDPOINTS: &[Endpoint] = &[
    endpoint(HttpMethod::Post, "/v1/config/publish", WRITE,
        "Publishes changes to a layer, or a draft. Honours If-Match and Idempotency-Key.")
        .takes("PublishBody").answers(200, "PublishAnswer"),
    endpoint(HttpMethod::Post, "/v1/config/rollback", WRITE,
        "Makes a new revision with the content of an old one. Honours If-Match and Idempotency-Key.")
        .takes("RollbackBody").answers(200, "PublishAnswer"),
    endpoint(HttpMethod::Get, "/v1/config/versions", READ, "A channel's versions, newest first.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2],
            ("since", "Only those issued since this time or day."), PAGE_TOKEN, PAGE_SIZE])
        .answers(200, "VersionsAnswer"),
    endpoint(HttpMethod::Get, "/v1/config/diff", READ, "What differs between two revisions.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2], ("!from", "A revision."), ("!to", "A revision.")])
        .answers(200, "DiffAnswer"),
    endpoint(HttpMethod::Get, "/v1/snapshots/{id}", READ,
        "A channel at a revision, signed. The ids stand in the versions.")
        .answers(200, "SnapshotAnswer"),
    endpoint(HttpMethod::Post, "/v1/drafts", WRITE, "Creates a draft.")
        .takes("PublishBody").answers(201, "DraftAnswer"),
    endpoint(HttpMethod::Get, "/v1/drafts/{id}", WRITE, "A draft.").answers(200, "DraftAnswer"),
    endpoint(HttpMethod::Patch, "/v1/drafts/{id}", WRITE, "Adds changes to a draft.")
        .takes("DraftPatch").answers(200, "DraftAnswer"),
    endpoint(HttpMethod::Post, "/v1/drafts/{id}:validate", WRITE,
        "Tries to publish a draft and undoes it.").answers(200, "ValidationAnswer"),
    endpoint(HttpMethod::Post, "/v1/drafts/{id}:publish", WRITE, "Publishes a draft.")
        .answers(200, "PublishAnswer"),
    endpoint(HttpMethod::Post, "/v1/import", WRITE,
        "Takes a bundle of up to 32 MiB; Location tells where to ask how far it is.")
        .takes("ImportBody").answers(202, "ImportAnswer"),
    endpoint(HttpMethod::Get, "/v1/import/{id}", WRITE, "How far an import is.")
        .answers(200, "ImportAnswer"),
    endpoint(HttpMethod::Get, "/v1/audit", READ, "Who wrote what, newest first.")
        .query(&[("from", "A time or a day."), ("to", "A time or a day, not included."),
            ("action", "Only this action."), PAGE_TOKEN, PAGE_SIZE])
        .answers(200, "AuditAnswer"),
    endpoint(HttpMethod::Get, "/v1/tenants", PLATFORM, "All tenants.").answers(200, "TenantList"),
    endpoint(HttpMethod::Post, "/v1/tenants", PLATFORM,
        "Creates a tenant, or gives one another edition or status.")
        .takes("TenantBody").answers(201, "ChannelList"),
    endpoint(HttpMethod::Get, "/v1/environments", READ, "The tenant's environments.")
        .answers(200, "ItemList"),
    endpoint(HttpMethod::Post, "/v1/environments", ADMIN,
        "Creates an environment and its channels.")
        .takes("EnvironmentBody").answers(201, "ChannelList"),
    endpoint(HttpMethod::Get, "/v1/sets", READ, "The tenant's config sets.").answers(200, "ItemList"),
    endpoint(HttpMethod::Post, "/v1/sets", ADMIN, "Creates a config set.")
        .takes("SetBody").answers(201, "ChannelList"),
    endpoint(HttpMethod::Get, "/v1/sets/{set}/apps", READ, "The apps of a config set.")
        .answers(200, "ItemList"),
    endpoint(HttpMethod::Post, "/v1/sets/{set}/apps", ADMIN, "Creates an app and its channels.")
        .takes("AppBody").answers(201, "ChannelList"),
    endpoint(HttpMethod::Get, "/v1/layers", READ, "What stands in the layers of a config set.")
        .query(&[("!set", "The config set.")]).answers(200, "LayersAnswer"),
    endpoint(HttpMethod::Get, "/v1/keys", ADMIN, "The tenant's API keys, without secrets.")
        .answers(200, "KeyList"),
    endpoint(HttpMethod::Post, "/v1/keys", ADMIN, "Creates an API key; shows its secret this once.")
        .takes("KeyBody").answers(201, "KeyAnswer"),
    endpoint(HttpMethod::Delete, "/v1/keys/{id}", ADMIN, "Revokes an API key."),
    endpoint(HttpMethod::Get, "/v1/keys/signing", None,
        "The public key that signs revisions, as a JWK set."),
    endpoint(HttpMethod::Get, "/v1/openapi.json", None, "This document."),
    endpoint(HttpMethod::Get, "/v1/internal/snapshot", GATEWAY, "A channel for a gateway.")
        .query(&[("!tenant", "The tenant."), ("!environment", "The environment."),
            ("!set", "The config set."), ("!app", "The app.")]),
    endpoint(HttpMethod::Get, "/v1/internal/principal", GATEWAY, "Whom a key stands for.")
        .query(&[("!key", "SHA-256 of the key, in hex.")]),
];

/// What the gateway serves itself, on the same port.
const GATEWAY_ENDPOINTS: &[Endpoint] = &[
    endpoint(HttpMethod::Get, "/v1/config", READ,
        "The effective configuration. Strong ETag, If-None-Match, 304; wait= holds the request until it changes.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2],
            ("keys", "Exact keys or prefix*, repeatable."), ("wait", "How long to wait, as in 30s.")]),
    endpoint(HttpMethod::Get, "/v1/stream", READ,
        "WebSocket with the subprotocol ecs.refresh.v1; the key may come as access_token or in an auth frame."),
    endpoint(HttpMethod::Get, "/v1/stream/changes", READ,
        "Server-sent events; Last-Event-ID resumes on any node.")
        .query(&[CHANNEL[0], CHANNEL[1], CHANNEL[2], ("keys", "Exact keys or prefix*, repeatable."),
            ("access_token", "The key, where a header is not possible.")]),
    endpoint(HttpMethod::Post, "/v1/events", EVENTS,
        "Change events for this gateway: application/x-ndjson, one a line, at most 1,000."),
    endpoint(HttpMethod::Get, "/v1/config/convergence", READ,
        "How many subscribers stand at which revision.").query(&CHANNEL),
];

/// Made once: it is the same for everyone.
static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(build);

pub(super) async fn document() -> Response {
    json(&*DOCUMENT)
}

fn build() -> utoipa::openapi::OpenApi {
    let mut document = Schemas::openapi();
    document.info = Info::new("Freshet", env!("CARGO_PKG_VERSION"));
    let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Default::default);
    components
        .security_schemes
        .insert("key".to_owned(), key.into());
    for endpoint in ENDPOINTS.iter().chain(GATEWAY_ENDPOINTS) {
        let methods = vec![endpoint.method.clone()];
        document
            .paths
            .add_path_operation(endpoint.path, methods, operation(endpoint));
    }
    document
}

fn operation(endpoint: &Endpoint) -> Operation {
    let (status, schema) = endpoint.answer;
    let mut answer = ResponseBuilder::new().description("Done.");
    if let Some(schema) = schema {
        answer = answer.content("application/json", content(schema));
    }
    let problem = ResponseBuilder::new()
        .description("A problem document (RFC 9457) with reasonCodes, and violations for 422.");
    let mut operation = OperationBuilder::new()
        .summary(Some(endpoint.summary))
        .response(status.to_string(), answer.build())
        .response("default", problem.build());
    for name in endpoint.path.split(['{', '}']).skip(1).step_by(2) {
        let parameter = parameter(name, ParameterIn::Path, Required::True);
        operation = operation.parameter(parameter.build());
    }
    for (name, says) in endpoint.query {
        let required = if name.starts_with('!') {
            Required::True
        } else {
            Required::False
        };
        let name = name.trim_start_matches('!');
        let parameter = parameter(name, ParameterIn::Query, required).description(Some(*says));
        operation = operation.parameter(parameter.build());
    }
    if let Some(schema) = endpoint.body {
        let body = RequestBodyBuilder::new()
            .content("application/json", content(schema))
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if let Some(scope) = endpoint.scope {
        operation = operation
            .description(Some(format!("Needs the scope {scope}.")))
            .security(SecurityRequirement::new("key", Vec::<String>::new()));
    }
    operation.build()
}

fn content(schema: &str) -> utoipa::openapi::Content {
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .build()
}

fn parameter(name: &str, place: ParameterIn, required: Required) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
}
