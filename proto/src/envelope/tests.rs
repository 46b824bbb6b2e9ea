use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::hash::ContentHash;
use crate::ids::{Epoch, Key};
use crate::principal::{KeyDigest, Principal, Scope};
use crate::value::Value;

fn published(kind: PublishKind, values: &[&str]) -> Event {
    let tenant: TenantId = "t".parse().unwrap();
    let set = (1..).zip(values).map(|(number, value)| {
        let key: Key = format!("k/{number}").parse().unwrap();
        (
            key,
            Value::from_json(Bytes::from((*value).to_owned())).unwrap(),
        )
    });
    Event {
        id: "e-1".parse().unwrap(),
        tenant: tenant.clone(),
        edition: Edition::Pro,
        occurred_at: Timestamp::from_millis(1_756_023_672_123).unwrap(),
        body: EventBody::Published(Published {
            channel: ChannelId {
                tenant,
                environment: "prod".parse().unwrap(),
                set: "storefront".parse().unwrap(),
                app: "web".parse().unwrap(),
            },
            previous: Revision::new(7).unwrap(),
            head: Head {
                epoch: Epoch::new(3).unwrap(),
                revision: Revision::new(8).unwrap(),
                version: "v8".parse().unwrap(),
                hash: ContentHash::of([]),
                signature: "sig:v1:a-_9..Z".parse().unwrap(),
                issued_at: Timestamp::from_millis(1_756_023_672_000).unwrap(),
                trace: Some("trace-1".parse().unwrap()),
            },
            kind,
            delta: Some(Delta {
                set: set.collect::<BTreeMap<_, _>>(),
                del: vec!["gone".parse().unwrap()],
            }),
        }),
    }
}

fn json_of(event: &Event) -> Json {
    serde_json::from_slice(&event.encode()).unwrap()
}

fn decode(json: &Json) -> Result<Event, EventError> {
    Event::decode(json.to_string().as_bytes())
}

#[test]
fn an_event_of_each_kind_is_read_as_it_was_written() {
    let values = ["1", "null", r#"{"a":"\"é\u0000"}"#];
    for kind in [
        PublishKind::Publish,
        PublishKind::Rollback,
        PublishKind::KillSwitch,
    ] {
        let event = published(kind, &values);
        let bytes = event.encode();
        assert!(!bytes.contains(&b'\n'), "it stands on one line");
        assert_eq!(Event::decode(&bytes).unwrap(), event);
    }
    let grant = GrantId::from(KeyDigest::of("key"));
    let now = Some(Box::new(some_grant(grant)));
    for body in [
        EventBody::AccessChanged { grant, now: None },
        EventBody::AccessChanged { grant, now },
        EventBody::TenantSuspended,
    ] {
        let event = Event {
            body,
            ..published(PublishKind::Publish, &[])
        };
        let bytes = event.encode();
        assert_eq!(Envelope::read(&bytes).unwrap().channel(), None);
        assert_eq!(Event::decode(&bytes).unwrap(), event);
    }
}

#[test]
fn a_change_of_access_speaks_of_one_grant() {
    let grant = GrantId::from(KeyDigest::of("key"));
    let other = some_grant(GrantId::from(KeyDigest::of("other")));
    let now = Some(Box::new(other));
    let event = Event {
        body: EventBody::AccessChanged { grant, now },
        ..published(PublishKind::Publish, &[])
    };
    let read = Event::decode(&event.encode());
    assert!(matches!(read, Err(EventError::Malformed(_))), "{read:?}");
}

fn some_grant(id: GrantId) -> Grant {
    let tenant = TenantId::new("t").unwrap();
    Grant {
        id,
        principal: Principal {
            key_id: "k1".to_owned(),
            tenant: tenant.clone(),
            edition: Edition::Pro,
            scopes: vec![Scope::Read(tenant)],
        },
        not_after: Some(Timestamp::from_millis(1_800_000_000_000).unwrap()),
    }
}

#[test]
fn whom_an_event_concerns_is_known_before_what_it_says_is_read() {
    let mut json = json_of(&published(PublishKind::Publish, &["1"]));
    json["payload"]["head"] = json!({"revision": "not a number"});
    let bytes = json.to_string();
    let envelope = Envelope::read(bytes.as_bytes()).unwrap();
    assert_eq!(
        envelope.channel().unwrap().to_string(),
        "t/prod/storefront/web"
    );
    assert!(matches!(envelope.open(), Err(EventError::Malformed(_))));
}

#[test]
fn names_are_checked_although_nothing_else_is_read_yet() {
    for (pointer, name) in [
        ("/tenant/tenantId", "a/b"),
        ("/payload/configSet", ""),
        ("/payload/scope/env", "a b"),
        ("/payload/scope/app", "*"),
    ] {
        let mut json = json_of(&published(PublishKind::Publish, &["1"]));
        *json.pointer_mut(pointer).unwrap() = json!(name);
        let read = Envelope::read(json.to_string().as_bytes()).map(|_| ());
        assert!(matches!(read, Err(EventError::Malformed(_))), "{pointer}");
    }
}

#[test]
fn what_is_wrong_with_an_event_is_told_apart() {
    let good = json_of(&published(PublishKind::Publish, &["1"]));
    let with = |pointer: &str, value: Json| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        decode(&json)
    };
    let refused = with("/specVersion", json!("ecs.events.v2"));
    assert!(matches!(refused, Err(EventError::SpecVersion)));
    let refused = with("/eventType", json!("Other"));
    assert!(matches!(refused, Err(EventError::UnknownType)));
    for (pointer, name) in [
        ("/payload/configSet", "configSet"),
        ("/payload/scope", "scope"),
        ("/payload/previousRevision", "previousRevision"),
        ("/payload/head", "head"),
    ] {
        let refused = with(pointer, Json::Null);
        assert!(
            matches!(refused, Err(EventError::MissingField { field }) if field == name),
            "{name}: {refused:?}"
        );
    }
    for (pointer, value) in [
        ("/eventId", json!("a b")),
        ("/eventId", json!(7)),
        ("/occurredAt", json!("yesterday")),
        ("/payload/head/revision", json!(-1)),
        ("/payload/delta/set", json!({"*": 1})),
        ("/payload/delta/del", json!([""])),
    ] {
        let refused = with(pointer, value);
        assert!(
            matches!(refused, Err(EventError::Malformed(_))),
            "{pointer}: {refused:?}"
        );
    }
    assert!(matches!(
        Event::decode(b"\"\xff\""),
        Err(EventError::Malformed(_))
    ));
    let long = vec![b' '; ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(
        Event::decode(&long),
        Err(EventError::TooLarge { .. })
    ));
}

#[test]
fn an_event_without_a_delta_and_one_with_unknown_fields_are_read() {
    let event = published(PublishKind::Publish, &["1"]);
    let mut json = json_of(&event);
    json["tenant"]["environments"] = json!(["prod"]);
    json["security"] = json!({"sig": "JWS", "mTLS": true});
    json["payload"]["semanticChange"] = json!("non-breaking");
    json["payload"]["kind"] = json!("of_the_future");
    assert_eq!(decode(&json).unwrap(), event);
    json["payload"]["delta"] = Json::Null;
    let EventBody::Published(read) = decode(&json).unwrap().body else {
        panic!("it is a publish");
    };
    assert_eq!(read.delta, None);
}

proptest! {
    /// JSON lets every character of a text be escaped, and white space stand between all tokens.
    #[test]
    fn escapes_and_white_space_do_not_matter(escaped in any::<u64>(), spaces in 0usize..3) {
        let event = published(PublishKind::Publish, &["1", "\"x\""]);
        let pretty = if spaces == 0 {
            String::from_utf8(event.encode()).unwrap()
        } else {
            serde_json::to_string_pretty(&json_of(&event)).unwrap()
        };
        // Letters in names and field names; a value's own text must stay as it is.
        let mut text = String::new();
        for (at, character) in pretty.chars().enumerate() {
            if matches!(character, 'e' | 't' | 'd') && escaped >> (at % 64) & 1 == 1 {
                text += &format!("\\u{:04x}", u32::from(character));
            } else {
                text.push(character);
            }
        }
        prop_assert_eq!(Event::decode(text.as_bytes()).unwrap(), event);
    }
}
