use std::collections::BTreeSet;

use freshet_proto::principal::Edition;

use super::*;

fn row(method: Method, path: &str) -> &'static Endpoint {
    match find(&method, path) {
        Lookup::Known(endpoint) => endpoint,
        other @ (Lookup::WrongMethod { .. } | Lookup::Unknown) => {
            panic!("{method} {path}: {other:?}")
        }
    }
}

fn allowed(method: Method, path: &str) -> String {
    match find(&method, path) {
        Lookup::WrongMethod { allow } => allow,
        other @ (Lookup::Known(_) | Lookup::Unknown) => panic!("{method} {path}: {other:?}"),
    }
}

#[test]
fn each_row_is_found_by_its_method_and_its_path() {
    let mut seen = BTreeSet::new();
    for endpoint in ENDPOINTS {
        assert!(
            seen.insert((endpoint.path, endpoint.method.as_str())),
            "{} {} stands there twice",
            endpoint.method,
            endpoint.path
        );
        assert!(endpoint.path.matches('{').count() <= 1, "{}", endpoint.path);
        let path = match endpoint.parameter() {
            Some(name) => endpoint.path.replace(&format!("{{{name}}}"), "a.b-c_d~1"),
            None => endpoint.path.to_owned(),
        };
        let found = row(endpoint.method.clone(), &path);
        assert!(std::ptr::eq(found, endpoint), "{path}: {found:?}");
        if endpoint.parameter().is_some() {
            assert_eq!(found.argument(&path).as_deref(), Some("a.b-c_d~1"));
        }
        if endpoint.method == Method::GET {
            assert!(std::ptr::eq(row(Method::HEAD, &path), endpoint), "{path}");
        }
    }
}

#[test]
fn the_path_with_more_of_its_own_text_wins() {
    assert_eq!(
        row(Method::GET, "/v1/keys/signing").path(),
        "/v1/keys/signing"
    );
    assert_eq!(
        row(Method::DELETE, "/v1/keys/signed").path(),
        "/v1/keys/{id}"
    );
    let draft = row(Method::POST, "/v1/drafts/d1:validate");
    assert_eq!(draft.path(), "/v1/drafts/{id}:validate");
    assert_eq!(
        draft.argument("/v1/drafts/d1:validate").as_deref(),
        Some("d1")
    );
    assert_eq!(allowed(Method::GET, "/v1/drafts/d1:publish"), "POST");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    assert_eq!(allowed(Method::PUT, "/v1/tenants"), "GET, HEAD, POST");
    assert_eq!(allowed(Method::POST, "/v1/drafts/d1"), "GET, HEAD, PATCH");
    assert_eq!(allowed(Method::DELETE, "/v1/keys/signing"), "GET, HEAD");
    assert_eq!(allowed(Method::HEAD, "/v1/import"), "POST");
    assert_eq!(allowed(Method::POST, "/v1/stream/changes"), "GET, HEAD");
}

#[test]
fn what_is_nowhere_is_unknown() {
    for path in [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1/tenants/",
        "/v1/keys/",
        "/v1/keys/a/b",
        "/v1/sets//apps",
        "/v1/sets/apps",
        "/V1/tenants",
        "/v1/%74enants",
        "/v1/drafts/:validate/",
    ] {
        assert!(
            matches!(find(&Method::GET, path), Lookup::Unknown),
            "{path}"
        );
    }
}

#[test]
fn an_argument_is_decoded_once_and_must_be_text() {
    let apps = row(Method::GET, "/v1/sets/a%2Fb/apps");
    let argument = |segment: &str| apps.argument(&format!("/v1/sets/{segment}/apps"));
    for (segment, decoded) in [
        ("a%2Fb", "a/b"),
        ("%61", "a"),
        ("%2541", "%41"),
        ("%C3%a9", "é"),
        ("50%", "50%"),
        ("%g1%1", "%g1%1"),
    ] {
        assert_eq!(argument(segment).as_deref(), Some(decoded), "{segment}");
    }
    assert_eq!(argument("%ff"), None);
}

#[test]
fn a_gateway_knows_what_is_its_own_and_what_has_a_body() {
    assert!(row(Method::GET, "/v1/config").is_of_gateway());
    assert!(!row(Method::GET, "/v1/config/diff").is_of_gateway());
    for (method, path, payload) in [
        (Method::GET, "/v1/config", Payload::Nothing),
        (Method::POST, "/v1/drafts/d:publish", Payload::Nothing),
        (Method::POST, "/v1/config/publish", Payload::Document),
        (Method::POST, "/v1/import", Payload::Import),
        (Method::POST, "/v1/events", Payload::Events),
    ] {
        assert_eq!(row(method, path).payload(), payload, "{path}");
    }
    for endpoint in ENDPOINTS {
        let is_internal = endpoint.path.starts_with("/v1/internal/");
        assert_eq!(
            endpoint.access == Access::Gateway,
            is_internal,
            "{}",
            endpoint.path
        );
    }
}

#[test]
fn access_is_of_the_tenant_that_is_named_and_the_platform_has_all_but_a_gateways() {
    let tenant = |name: &str| TenantId::new(name).unwrap();
    let may = |of: &str, scope: &str, named: &str| {
        let principal = Principal {
            key_id: "k".to_owned(),
            tenant: tenant(of),
            edition: Edition::Free,
            scopes: vec![scope.parse().unwrap()],
        };
        let all = [
            (Access::Public, 'p'),
            (Access::Read, 'r'),
            (Access::Write, 'w'),
            (Access::Admin, 'a'),
            (Access::Platform, 'P'),
            (Access::Gateway, 'G'),
            (Access::Events, 'E'),
        ];
        let allowed = all
            .into_iter()
            .filter(|(access, _)| access.allows(&principal, &tenant(named)));
        allowed.map(|(_, letter)| letter).collect::<String>()
    };
    assert_eq!(may("t", "ecs:read:t", "t"), "pr");
    assert_eq!(may("t", "ecs:write:t", "t"), "pw");
    assert_eq!(may("t", "ecs:admin:t", "t"), "pa");
    assert_eq!(may("t", "ecs:admin:t", "other"), "p");
    assert_eq!(may("t", "ecs:read:other", "other"), "p");
    assert_eq!(may("t", "ecs:admin:other", "other"), "p");
    assert_eq!(may("platform", "ecs:admin:platform", "t"), "prwaPE");
    assert_eq!(may("platform", "ecs:gateway:platform", "platform"), "pG");
    assert_eq!(may("platform", "ecs:events:platform", "platform"), "pE");
}
