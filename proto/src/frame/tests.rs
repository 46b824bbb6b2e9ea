use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::close::ErrorCode;
use crate::hash::ContentHash;
use crate::ids::{Epoch, Key, Revision, SubscriptionId, Version};
use crate::timestamp::Timestamp;
use crate::value::Value;

fn text(frame: &ServerFrame) -> String {
    let mut out = Vec::new();
    frame.encode(&mut out);
    String::from_utf8(out).unwrap()
}

fn revision(number: u64) -> Revision {
    Revision::new(number).unwrap()
}

#[test]
fn the_example_of_a_subscribe_is_read() {
    let json =
        br#"{"type":"subscribe","sub":1,"environment":"prod","set":"storefront","app":"web"}"#;
    let ClientFrame::Subscribe(subscribe) = ClientFrame::decode(json).unwrap() else {
        panic!("not a subscribe")
    };
    assert_eq!(subscribe.sub, SubscriptionId(1));
    assert!(subscribe.keys.is_all());
    assert_eq!(subscribe.mode, DeliveryMode::Delta);
    assert_eq!(subscribe.cursor, None);
}

#[test]
fn frames_look_as_the_protocol_page_shows() {
    let delta = ServerFrame::Delta(DeltaFrame {
        head: DeltaHead {
            sub: SubscriptionId(1),
            from: revision(41),
            to: revision(42),
            issued_at: Timestamp::from_millis(0).unwrap(),
            hash: Some(ContentHash::of([])),
            sig: None,
            trace: None,
            filtered: false,
        },
        set: [(
            Key::new("features/x").unwrap(),
            serde_json::from_str("true").unwrap(),
        )]
        .into(),
        del: vec![Key::new("old").unwrap()],
    });
    let error = ServerFrame::Error(ErrorFrame {
        code: ErrorCode::UnknownChannel,
        message: "no such channel".to_owned(),
        sub: Some(SubscriptionId(3)),
        retry_after_ms: None,
    });
    let bookmark = ServerFrame::Bookmark(Bookmark {
        sub: SubscriptionId(1),
        revision: revision(42),
        head: revision(43),
    });
    insta::assert_snapshot!([delta, error, bookmark].iter().map(text).collect::<Vec<_>>().join("\n"), @r#"
    {"type":"delta","sub":1,"from":41,"to":42,"issuedAt":"1970-01-01T00:00:00Z","hash":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","set":{"features/x":true},"del":["old"]}
    {"type":"error","code":"channel.unknown","message":"no such channel","sub":3}
    {"type":"bookmark","sub":1,"revision":42,"head":43}
    "#);
}

#[test]
fn a_frame_that_is_not_one_is_refused_for_its_reason() {
    let decode = ClientFrame::decode;
    assert!(matches!(decode(b"["), Err(FrameError::Malformed(_))));
    assert!(matches!(decode(b"{}"), Err(FrameError::Malformed(_))));
    assert!(matches!(
        decode(br#"{"type":"delta"}"#),
        Err(FrameError::UnknownType { .. })
    ));
    assert!(matches!(
        decode(br#"{"type":"subscribe","sub":-1}"#),
        Err(FrameError::Malformed(_))
    ));
    assert!(matches!(
        decode(&[b' '; 65 * 1024]),
        Err(FrameError::TooLarge { .. })
    ));
    let long_key = format!(
        r#"{{"type":"subscribe","sub":1,"environment":"prod","set":"s","app":"a","keys":["{}"]}}"#,
        "k".repeat(300)
    );
    assert!(matches!(
        decode(long_key.as_bytes()),
        Err(FrameError::Filter { .. })
    ));
}

#[test]
fn null_is_a_field_that_was_left_out() {
    let plain = r#"{"type":"subscribe","sub":1,"environment":"prod","set":"s","app":"a""#;
    let absent = ClientFrame::decode(format!("{plain}}}").as_bytes()).unwrap();
    let nulls = format!(r#"{plain},"keys":null,"mode":null,"cursor":null}}"#);
    assert_eq!(ClientFrame::decode(nulls.as_bytes()).unwrap(), absent);
    let ack = br#"{"type":"ack","sub":1,"revision":2,"outcome":"applied","reason":null}"#;
    assert!(ClientFrame::decode(ack).is_ok());
    // What must be there may not be null.
    let null = br#"{"type":"ack","sub":1,"revision":null,"outcome":"applied"}"#;
    let malformed = ClientFrame::decode(null);
    assert!(matches!(malformed, Err(FrameError::Malformed(_))));
}

#[test]
fn an_array_is_no_object_and_an_object_no_word() {
    let subscribe = |field: &str| {
        format!(
            r#"{{"type":"subscribe","sub":1,"environment":"prod","set":"s","app":"a",{field}}}"#
        )
    };
    for json in [
        r#"["ping"]"#.to_owned(),
        r#" ["auth","key"]"#.to_owned(),
        r#"["subscribe",1,"prod","s","a"]"#.to_owned(),
        subscribe(r#""cursor":[1,2]"#),
        subscribe(r#""mode":{"hint":null}"#),
        subscribe(r#""keys":{"a":"b"}"#),
        r#"{"type":"ack","sub":1,"revision":2,"outcome":{"applied":null}}"#.to_owned(),
    ] {
        let decoded = ClientFrame::decode(json.as_bytes());
        assert!(
            matches!(decoded, Err(FrameError::Malformed(_))),
            "{json}: {decoded:?}"
        );
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i32>().prop_map(serde_json::Value::from),
        ".{0,12}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_map(|json| Value::from_json(Bytes::from(json.to_string())).unwrap())
}

fn any_key() -> impl Strategy<Value = Key> {
    "[a-zé/\"\\\\]{1,20}".prop_map(|text| Key::new(&text).unwrap())
}

fn any_subscribe() -> impl Strategy<Value = ClientFrame> {
    let patterns = proptest::collection::vec("[a-z/]{1,8}[*]?", 0..5);
    let cursor = proptest::option::of((0u64..1 << 53, 0u64..1 << 53));
    (any::<u32>(), patterns, cursor, any::<bool>()).prop_map(|(sub, patterns, cursor, is_hint)| {
        ClientFrame::Subscribe(Subscribe {
            sub: SubscriptionId(sub),
            environment: "prod".parse().unwrap(),
            set: "storefront".parse().unwrap(),
            app: "web".parse().unwrap(),
            keys: crate::filter::KeyFilter::new(&patterns).unwrap(),
            mode: if is_hint {
                DeliveryMode::Hint
            } else {
                DeliveryMode::Delta
            },
            cursor: cursor.map(|(epoch, at)| crate::cursor::Cursor {
                epoch: Epoch::new(epoch).unwrap(),
                revision: revision(at),
            }),
        })
    })
}

proptest! {
    #[test]
    fn client_frames_survive_the_wire(frame in any_subscribe()) {
        prop_assert_eq!(ClientFrame::decode(&frame.encode()).unwrap(), frame);
    }

    #[test]
    fn snapshots_and_deltas_survive_the_wire(
        items in proptest::collection::btree_map(any_key(), any_value(), 0..8),
        del in proptest::collection::vec(any_key(), 0..4),
        from in 0u64..1 << 52,
        filtered: bool,
    ) {
        let hash = (!filtered).then(|| ContentHash::of([]));
        let issued_at = Timestamp::from_millis(from >> 6).unwrap();
        let snapshot = ServerFrame::Snapshot(SnapshotFrame {
            head: SnapshotHead {
                sub: SubscriptionId(1),
                epoch: Epoch::new(1).unwrap(),
                revision: revision(from),
                version: Version::new("v1").unwrap(),
                chunk: 1,
                chunks: 1,
                issued_at,
                hash,
                sig: None,
                filtered,
            },
            items: items.clone(),
        });
        prop_assert_eq!(ServerFrame::decode(text(&snapshot).as_bytes()).unwrap(), snapshot);
        let delta = ServerFrame::Delta(DeltaFrame {
            head: DeltaHead {
                sub: SubscriptionId(1),
                from: revision(from),
                to: revision(from + 1),
                issued_at,
                hash,
                sig: None,
                trace: None,
                filtered,
            },
            set: items,
            del,
        });
        prop_assert_eq!(ServerFrame::decode(text(&delta).as_bytes()).unwrap(), delta);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(ClientFrame::decode(&bytes));
        drop(ServerFrame::decode(&bytes));
        drop(crate::envelope::Event::decode(&bytes));
        drop(crate::snapshot::ChannelSnapshot::decode(&bytes));
    }
}
