//! Case 6: text is UTF-8, and is refused as soon as a part of it cannot be.

use freshet_proto::ws::Opcode::{Continuation, Text};

use super::{Answer, Case, NOT_UTF8};

/// κόσμε, in three kinds of characters.
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// The cases.
pub fn text() -> Vec<Case> {
    [parts(), early(), sequences()].concat()
}

fn parts() -> Vec<Case> {
    let mixed = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let broken = [KOSME, b"\xed\xa0\x80edited"].concat();
    // Where the surrogate stands. The bytes before it and its first are the beginning of text.
    let fault = KOSME.len() + 2;
    let mut by_byte = Case::new("6.3.2").part(Text, &broken[..1]);
    for byte in &broken[1..fault] {
        by_byte = by_byte.part(Continuation, &[*byte]);
    }
    vec![
        Case::new("6.1.1").text("").ends(),
        Case::new("6.1.2")
            .part(Text, b"")
            .part(Continuation, b"")
            .last(Continuation, b"")
            .hears(Answer::Text(Vec::new()))
            .ends(),
        Case::new("6.1.3")
            .part(Text, b"")
            .part(Continuation, b"middle frame payload")
            .last(Continuation, b"")
            .hears(Answer::Text(b"middle frame payload".to_vec()))
            .ends(),
        Case::new("6.2.1").text(mixed).ends(),
        Case::new("6.2.2").in_parts(Text, mixed, 12).ends(),
        Case::new("6.2.3").in_parts(Text, mixed, 1).ends(),
        Case::new("6.2.4").in_parts(Text, KOSME, 1).ends(),
        Case::new("6.3.1").last(Text, &broken).fails(NOT_UTF8),
        by_byte.fails(NOT_UTF8),
    ]
}

/// Nothing follows the part that cannot be text, and yet it is refused. Within a part the suite lets
/// a server wait for its end, and so do we.
fn early() -> Vec<Case> {
    let part = |number: &str, bytes: &[u8]| {
        let case = Case::new(number).part(Text, KOSME);
        case.part(Continuation, bytes).fails(NOT_UTF8)
    };
    let message = |number: &str, bytes: &[u8]| {
        let case = Case::new(number).last(Text, &[KOSME, bytes, b"edited"].concat());
        case.fails(NOT_UTF8)
    };
    vec![
        part("6.4.1", b"\xf4\x90\x80\x80"),
        part("6.4.2", b"\xf4\x90"),
        message("6.4.3", b"\xf4\x90\x80\x80"),
        message("6.4.4", b"\xf4\x90"),
    ]
}

/// A message of one frame each. What is UTF-8 is said by the table, and not asked of the library
/// that the decoder asks.
fn sequences() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |group: &str, number: usize, bytes: &[u8], is_good: bool| {
        let case = Case::new(format!("6.{group}.{number}"));
        cases.push(if is_good {
            case.text(bytes).ends()
        } else {
            case.last(Text, bytes).fails(NOT_UTF8)
        });
    };
    for (group, good) in GOOD {
        for (number, bytes) in good.iter().enumerate() {
            add(group, number + 1, bytes, true);
        }
    }
    // Beginnings of a text are text where no character is cut.
    for length in 1..=KOSME.len() {
        let is_whole = [2, 5, 7, 9, 11].contains(&length);
        add("6", length, &KOSME[..length], is_whole);
    }
    for (group, bad) in BAD {
        for (number, bytes) in bad.iter().enumerate() {
            add(group, number + 1, bytes, false);
        }
    }
    let all: Vec<u8> = (0x80..=0xbf).collect();
    add("12", 8, &all, false);
    for (number, starts) in [
        0xc0..=0xdf,
        0xe0..=0xef,
        0xf0..=0xf7,
        0xf8..=0xfb,
        0xfc..=0xfd,
    ]
    .into_iter()
    .enumerate()
    {
        let bytes: Vec<u8> = starts.flat_map(|start| [start, b' ']).collect();
        add("13", number + 1, &bytes, false);
    }
    add("15", 1, &CUT.concat(), false);
    for (number, bytes) in NONCHARACTERS.iter().enumerate() {
        add("22", number + 1, bytes, true);
    }
    cases
}

/// Sequences whose last byte is missing.
const CUT: [&[u8]; 10] = [
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
];

/// By group.
type Table<const N: usize> = [(&'static str, &'static [&'static [u8]]); N];

const GOOD: Table<5> = [
    (
        "5",
        &[
            b"hello\x24world",
            b"hello\xc2\xa2world",
            b"hello\xe2\x82\xacworld",
            b"hello\xf0\xa4\xad\xa2world",
            KOSME,
        ],
    ),
    (
        "7",
        &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
    ),
    (
        "9",
        &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
    ),
    (
        "11",
        &[
            b"\xed\x9f\xbf",
            b"\xee\x80\x80",
            b"\xef\xbf\xbd",
            b"\xf4\x8f\xbf\xbf",
        ],
    ),
    (
        "23",
        &[
            b"\xef\xbf\xb9",
            b"\xef\xbf\xba",
            b"\xef\xbf\xbb",
            b"\xef\xbf\xbc",
            b"\xef\xbf\xbd",
            b"\xef\xbf\xbe",
            b"\xef\xbf\xbf",
        ],
    ),
];

const BAD: Table<11> = [
    ("8", &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    (
        "10",
        &[
            b"\xf7\xbf\xbf\xbf",
            b"\xfb\xbf\xbf\xbf\xbf",
            b"\xfd\xbf\xbf\xbf\xbf\xbf",
        ],
    ),
    ("11, the fifth", &[b"\xf4\x90\x80\x80"]),
    (
        "12",
        &[
            b"\x80",
            b"\xbf",
            b"\x80\xbf",
            b"\x80\xbf\x80",
            b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80",
            b"\x80\xbf\x80\xbf\x80\xbf",
        ],
    ),
    ("14", &CUT),
    ("16", &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    (
        "17",
        &[
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ],
    ),
    (
        "18",
        &[
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ],
    ),
    (
        "19",
        &[
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ],
    ),
    (
        "20",
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
    (
        "21",
        &[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ],
    ),
];

/// Code points that are no characters and may be in text all the same: the last two of each plane.
/// Source: RFC 3629 section 3, which leaves out surrogates only.
const NONCHARACTERS: [&[u8]; 34] = [
    b"\xef\xbf\xbe",
    b"\xef\xbf\xbf",
    b"\xf0\x9f\xbf\xbe",
    b"\xf0\x9f\xbf\xbf",
    b"\xf0\xaf\xbf\xbe",
    b"\xf0\xaf\xbf\xbf",
    b"\xf0\xbf\xbf\xbe",
    b"\xf0\xbf\xbf\xbf",
    b"\xf1\x8f\xbf\xbe",
    b"\xf1\x8f\xbf\xbf",
    b"\xf1\x9f\xbf\xbe",
    b"\xf1\x9f\xbf\xbf",
    b"\xf1\xaf\xbf\xbe",
    b"\xf1\xaf\xbf\xbf",
    b"\xf1\xbf\xbf\xbe",
    b"\xf1\xbf\xbf\xbf",
    b"\xf2\x8f\xbf\xbe",
    b"\xf2\x8f\xbf\xbf",
    b"\xf2\x9f\xbf\xbe",
    b"\xf2\x9f\xbf\xbf",
    b"\xf2\xaf\xbf\xbe",
    b"\xf2\xaf\xbf\xbf",
    b"\xf2\xbf\xbf\xbe",
    b"\xf2\xbf\xbf\xbf",
    b"\xf3\x8f\xbf\xbe",
    b"\xf3\x8f\xbf\xbf",
    b"\xf3\x9f\xbf\xbe",
    b"\xf3\x9f\xbf\xbf",
    b"\xf3\xaf\xbf\xbe",
    b"\xf3\xaf\xbf\xbf",
    b"\xf3\xbf\xbf\xbe",
    b"\xf3\xbf\xbf\xbf",
    b"\xf4\x8f\xbf\xbe",
    b"\xf4\x8f\xbf\xbf",
];
