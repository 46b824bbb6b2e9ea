use proptest::prelude::*;

use super::*;

/// Feeds `bytes` as they are and answers what came out, as text.
fn read(peer: Peer, bytes: &[u8]) -> Result<Vec<String>, WsError> {
    let mut decoder = Decoder::new(peer, 64);
    let mut seen = Vec::new();
    decoder.feed(&mut bytes.to_vec(), |message| {
        seen.push(format!("{message:?}"))
    })?;
    Ok(seen)
}

#[test]
fn the_accept_key_is_the_one_of_the_rfc() {
    // Source: RFC 6455 section 1.3.
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn a_handshake_key_is_sixteen_bytes() {
    assert!(is_handshake_key("dGhlIHNhbXBsZSBub25jZQ=="));
    for key in [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25j!A==",
    ] {
        assert!(!is_handshake_key(key), "{key:?}");
    }
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // Source: RFC 6455 section 5.7.
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(read(Peer::Server, &hello).unwrap(), ["Text(\"Hello\")"]);
    let masked = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(read(Peer::Client, &masked).unwrap(), ["Text(\"Hello\")"]);
    let parts = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(read(Peer::Server, &parts).unwrap(), ["Text(\"Hello\")"]);
}

#[test]
fn a_ping_between_the_parts_of_a_message_is_emitted_first() {
    let bytes = [0x01, 0x01, b'a', 0x89, 0x01, b'p', 0x80, 0x01, b'b'];
    assert_eq!(
        read(Peer::Server, &bytes).unwrap(),
        ["Ping([112])", "Text(\"ab\")"]
    );
}

#[test]
fn framing_that_breaks_the_rfc_is_refused() {
    let mask = [0, 0, 0, 0];
    let client = |head: &[u8], payload: &[u8]| [head, &mask, payload].concat();
    for (bytes, error) in [
        (vec![0x81, 0x01, b'a'], WsError::Mask),
        (client(&[0xc1, 0x81], b"a"), WsError::ReservedBits),
        (client(&[0x83, 0x81], b"a"), WsError::Opcode),
        (client(&[0x09, 0x80], b""), WsError::Control),
        (
            client(&[0x89, 0xfe, 0x00, 0x7e], &[0; 126]),
            WsError::Control,
        ),
        (client(&[0x80, 0x81], b"a"), WsError::Fragmentation),
        (client(&[0x81, 0x81], &[0xff]), WsError::NotUtf8),
        (client(&[0x88, 0x81], &[0x03]), WsError::Close),
        (client(&[0x88, 0x82], &[0x03, 0xed]), WsError::CloseCode),
        (
            client(&[0x81, 0xfe, 0x00, 0x41], &[b'a'; 65]),
            WsError::TooLarge { bytes_max: 64 },
        ),
        (
            client(&[0x81, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0], b""),
            WsError::TooLarge { bytes_max: 64 },
        ),
    ] {
        assert_eq!(read(Peer::Client, &bytes), Err(error), "{bytes:x?}");
    }
    let twice = [client(&[0x01, 0x81], b"a"), client(&[0x01, 0x81], b"a")].concat();
    assert_eq!(read(Peer::Client, &twice), Err(WsError::Fragmentation));
}

#[test]
fn parts_together_may_not_exceed_the_bound() {
    let part = [&[0x01, 0xa8, 0, 0, 0, 0][..], &[b'a'; 40]].concat();
    let more = [&[0x00, 0xa8, 0, 0, 0, 0][..], &[b'a'; 40]].concat();
    let error = read(Peer::Client, &[part, more].concat()).unwrap_err();
    assert_eq!(error, WsError::TooLarge { bytes_max: 64 });
}

#[test]
fn a_length_is_refused_before_its_payload_is_held() {
    let mut decoder = Decoder::new(Peer::Client, 64);
    let mut head = [0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0];
    assert!(decoder.feed(&mut head, |_| {}).is_err());
    assert_eq!(decoder.partial.capacity(), 0);
}

#[test]
fn a_part_that_cannot_be_text_is_refused_before_its_message_is_whole() {
    let cut = [&[0x01, 0x02][..], b"a\xce", &[0x00, 0x01], b"\xba"].concat();
    assert_eq!(read(Peer::Server, &cut), Ok(Vec::new()));
    let broken = [&cut[..], &[0x00, 0x02], b"\xed\xa0"].concat();
    assert_eq!(read(Peer::Server, &broken), Err(WsError::NotUtf8));
}

#[test]
fn nothing_is_read_behind_a_close_frame() {
    let close = [0x88, 0x02, 0x03, 0xe8];
    let mut decoder = Decoder::new(Peer::Server, 64);
    let mut seen = Vec::new();
    for mut bytes in [[&close[..], &[0x89, 0x00]].concat(), vec![0xff; 9]] {
        let fed = decoder.feed(&mut bytes, |message| seen.push(format!("{message:?}")));
        assert_eq!(fed, Ok(()));
    }
    assert_eq!(seen, ["Close(Some(1000))"]);
    assert!(decoder.is_idle(), "and nothing is held");
}

#[test]
fn a_bound_can_be_raised_once_the_peer_is_known() {
    let mut message = [&[0x81, 0x28][..], &[b'a'; 40]].concat();
    let mut decoder = Decoder::new(Peer::Server, 16);
    decoder.set_bytes_max(64);
    assert!(decoder.feed(&mut message.clone(), |_| {}).is_ok());
    decoder.set_bytes_max(16);
    let error = decoder.feed(&mut message, |_| {}).unwrap_err();
    assert_eq!(error, WsError::TooLarge { bytes_max: 16 });
}

#[test]
fn a_close_frame_is_echoed_with_its_code() {
    for code in [None, Some(1000), Some(4999)] {
        let mut bytes = Vec::new();
        write_close_echo(&mut bytes, code);
        let seen = read(Peer::Server, &bytes).unwrap();
        assert_eq!(seen, [format!("Close({code:?})")]);
    }
}

proptest! {
    #[test]
    fn messages_survive_being_cut_anywhere(
        texts in proptest::collection::vec("[a-z]{0,200}", 1..6),
        cut in 1usize..17,
        mask: [u8; 4],
    ) {
        let mut bytes = Vec::new();
        for text in &texts {
            write_masked_frame(&mut bytes, Opcode::Text, mask, text.as_bytes());
        }
        let mut decoder = Decoder::new(Peer::Client, 256);
        let mut seen = Vec::new();
        for part in bytes.chunks_mut(cut) {
            decoder.feed(part, |message| {
                let Message::Text(text) = message else { panic!("{message:?}") };
                seen.push(text.to_owned());
            }).unwrap();
        }
        prop_assert!(decoder.is_idle());
        prop_assert_eq!(seen, texts);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_hold_more_than_its_bound(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
    ) {
        let mut decoder = Decoder::new(Peer::Client, 64);
        for mut part in parts {
            if decoder.feed(&mut part, |_| {}).is_err() {
                break;
            }
            prop_assert!(decoder.partial.len() <= 64 + HEAD_BYTES_MAX);
            prop_assert!(decoder.message.len() <= 64);
        }
    }
}
