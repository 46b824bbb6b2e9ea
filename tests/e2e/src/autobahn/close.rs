//! Case 7: the end.

use freshet_proto::ws::Opcode::{Close, Continuation, Ping, Text};

use super::{Answer, Case, NOT_UTF8, PROTOCOL};

/// Codes that may be sent. Source: RFC 6455 section 7.4 and, for 1012 to 1014, its registry.
const GOOD: [u16; 16] = [
    1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013, 1014,
];
/// Codes that may not. Source: as above; the suite leaves the last three open.
const BAD: [u16; 12] = [
    0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015, 5000, 65_535,
];

/// The cases.
pub fn close() -> Vec<Case> {
    [order(), payloads(), codes()].concat()
}

fn order() -> Vec<Case> {
    let ended = |number: &str| Case::new(number).ends();
    let large = vec![b'x'; 256 * 1024];
    vec![
        Case::new("7.1.1").text("Hello World!").ends(),
        ended("7.1.2").last(Close, &1000_u16.to_be_bytes()),
        ended("7.1.3").last(Ping, b"too late"),
        ended("7.1.4").last(Text, b"too late"),
        Case::new("7.1.5")
            .part(Text, b"fragment1")
            .ends()
            .last(Continuation, b"fragment2"),
        Case::new("7.1.6").text(large).ends().last(Ping, b""),
    ]
}

fn payloads() -> Vec<Case> {
    let reason = |length: usize| [&1000_u16.to_be_bytes()[..], &vec![b'*'; length]].concat();
    let closed = Answer::Closed(Some(1000));
    let broken = b"\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    vec![
        Case::new("7.3.1")
            .last(Close, b"")
            .hears(Answer::Closed(None)),
        Case::new("7.3.2").last(Close, b"a").fails(PROTOCOL),
        Case::new("7.3.3")
            .last(Close, &reason(0))
            .hears(closed.clone()),
        Case::new("7.3.4")
            .last(Close, &reason(10))
            .hears(closed.clone()),
        Case::new("7.3.5").last(Close, &reason(123)).hears(closed),
        Case::new("7.3.6").last(Close, &reason(124)).fails(PROTOCOL),
        Case::new("7.5.1").last(Close, broken).fails(NOT_UTF8),
    ]
}

fn codes() -> Vec<Case> {
    let good = GOOD.map(|code| {
        let case = Case::new(format!("7.7, {code}"));
        case.last(Close, &code.to_be_bytes())
            .hears(Answer::Closed(Some(code)))
    });
    let bad = BAD.map(|code| {
        let case = Case::new(format!("7.9 and 7.13, {code}"));
        case.last(Close, &code.to_be_bytes()).fails(PROTOCOL)
    });
    [&good[..], &bad].concat()
}
