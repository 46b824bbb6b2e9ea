//! What is at which path, and that it is described.

mod support;

use freshet_control::routes::{self, Access, Lookup};
use http::Method;
use serde_json::Value as Json;
use support::Control;

#[tokio::test]
async fn every_endpoint_that_is_described_is_there_and_asks_for_a_key() {
    let control = Control::demo().await;
    let document = control.get("", "/v1/openapi.json").await.expect(200).json;
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let path = path.replace("{id}", "some").replace("{set}", "some");
            let Lookup::Known(endpoint) = routes::find(&method.parse().unwrap(), &path) else {
                panic!("{method} {path} is described and not there");
            };
            let is_public = endpoint.access() == Access::Public;
            assert_eq!(operation["security"].is_null(), is_public, "{path}");
            let takes = !matches!(
                endpoint.payload(),
                routes::Payload::Nothing | routes::Payload::Events
            );
            assert_eq!(operation["requestBody"].is_object(), takes, "{path}");
            let expected = match (endpoint.is_of_gateway(), is_public) {
                (true, _) => 404,
                (false, true) => 200,
                (false, false) => 401,
            };
            let reply = control.call("", &method, &path, &[], Json::Null).await;
            assert_eq!(reply.status, expected, "{method} {path}");
            checked += 1;
        }
    }
    assert_eq!(checked, 35);
    assert!(document["components"]["schemas"]["PublishBody"].is_object());
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name: String = part
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        assert!(
            document["components"]["schemas"][&name].is_object(),
            "{name} is not described"
        );
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_with_the_right_ones_and_nowhere_is_404() {
    let control = Control::demo().await;
    let call = async |method: &str, path: &str| {
        control
            .call("demo-key", method, path, &[], Json::Null)
            .await
    };
    let refused = call("PUT", "/v1/keys").await.expect(405);
    assert_eq!(refused.header("allow"), "GET, HEAD, POST");
    assert_eq!(refused.reason(), "method.unknown");
    let refused = call("GET", "/v1/drafts/d:publish").await.expect(405);
    assert_eq!(refused.header("allow"), "POST");
    let refused = call("GET", "/v1/nothing").await.expect(404);
    assert_eq!(refused.reason(), "path.unknown");
}

#[tokio::test]
async fn head_is_answered_with_the_head_of_what_get_is() {
    let control = Control::demo().await;
    for (key, path, status) in [
        ("demo-key", "/v1/environments", 200),
        ("", "/v1/keys/signing", 200),
        ("", "/v1/openapi.json", 200),
        ("", "/v1/environments", 401),
        ("demo-key", "/v1/snapshots/none", 404),
    ] {
        let request = |method: Method| {
            let request = http::Request::builder().method(method).uri(path);
            let request = request.header("authorization", format!("Bearer {key}"));
            request.body(axum::body::Body::empty()).unwrap()
        };
        let whole = control.send(request(Method::GET)).await.expect(status);
        let head = control.send(request(Method::HEAD)).await.expect(status);
        assert_eq!(head.json, Json::Null, "{path}");
        assert_eq!(head.header("content-type"), whole.header("content-type"));
        let bytes: usize = head.header("content-length").parse().unwrap();
        assert!(bytes > 0, "{path}");
    }
}
