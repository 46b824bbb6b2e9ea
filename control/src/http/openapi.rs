//! The description of the interface: the table of endpoints with the schemas of the documents.

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use http::Method;
use utoipa::OpenApi;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Info, ObjectBuilder, Ref, Required, ResponseBuilder, Type};

use super::body::prepared;
use super::routes::{ENDPOINTS, Endpoint};
use crate::document;

/// The schemas; the paths come from the table of [`ENDPOINTS`].
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
    document::KeyPatch,
    document::KeyAnswer,
    document::KeyList,
    document::GrantsBody,
    document::LayersAnswer,
)))]
struct Schemas;

/// Made once: it is the same for everyone.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    serde_json::to_vec(&build())
        .expect("a description is JSON")
        .into()
});

pub(super) async fn document() -> Response {
    prepared(&DOCUMENT)
}

fn build() -> utoipa::openapi::OpenApi {
    let mut document = Schemas::openapi();
    document.info = Info::new("Freshet", env!("CARGO_PKG_VERSION"));
    let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Default::default);
    components
        .security_schemes
        .insert("key".to_owned(), key.into());
    for endpoint in ENDPOINTS {
        let methods = vec![method(endpoint)];
        document
            .paths
            .add_path_operation(endpoint.path(), methods, operation(endpoint));
    }
    document
}

fn operation(endpoint: &Endpoint) -> Operation {
    let about = endpoint.about();
    let (status, schema) = about.answer;
    let mut answer = ResponseBuilder::new().description("Done.");
    if let Some(schema) = schema {
        answer = answer.content("application/json", content(schema));
    }
    let problem = ResponseBuilder::new()
        .description("A problem document (RFC 9457) with reasonCodes, and violations for 422.");
    let mut operation = OperationBuilder::new()
        .summary(Some(about.summary))
        .response(status.to_string(), answer.build())
        .response("default", problem.build());
    if let Some(name) = endpoint.parameter() {
        let parameter = parameter(name, ParameterIn::Path, Required::True);
        operation = operation.parameter(parameter.build());
    }
    for (name, says) in about.query {
        let required = if name.starts_with('!') {
            Required::True
        } else {
            Required::False
        };
        let name = name.trim_start_matches('!');
        let parameter = parameter(name, ParameterIn::Query, required).description(Some(*says));
        operation = operation.parameter(parameter.build());
    }
    if let Some(schema) = about.takes {
        let body = RequestBodyBuilder::new()
            .content("application/json", content(schema))
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if let Some(scope) = endpoint.access().scope("{tenant}") {
        operation = operation
            .description(Some(format!("Needs the scope {scope}.")))
            .security(SecurityRequirement::new("key", Vec::<String>::new()));
    }
    operation.build()
}

fn method(endpoint: &Endpoint) -> HttpMethod {
    match *endpoint.method() {
        Method::GET => HttpMethod::Get,
        Method::POST => HttpMethod::Post,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        ref other => unreachable!("no endpoint has the method {other}"),
    }
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
