//! Cases 1 to 5: messages, pings and pongs, reserved bits, opcodes, messages in parts.

use freshet_proto::ws::Opcode::{Binary, Continuation, Ping, Pong, Text};

use super::{Answer, Case, PROTOCOL};

const HELLO: &[u8] = b"Hello, world!";

/// The cases.
pub fn framing() -> Vec<Case> {
    [messages(), pings(), reserved_bits(), opcodes(), parts()].concat()
}

fn messages() -> Vec<Case> {
    let sizes = [
        ("1", 0),
        ("2", 125),
        ("3", 126),
        ("4", 127),
        ("5", 128),
        ("6", 65_535),
        ("7, 8", 65_536),
    ];
    let text = sizes.map(|(number, size)| {
        let number = format!("1.1.{number}");
        Case::new(number).text(vec![b'*'; size]).ends()
    });
    let binary = sizes.map(|(number, size)| {
        let number = format!("1.2.{number}");
        Case::new(number).binary(&vec![0xfe; size]).ends()
    });
    [text, binary].concat()
}

fn pings() -> Vec<Case> {
    let odd = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    let ten = (0..10).fold(Case::new("2.10, 2.11"), |case, number| {
        case.ping(format!("payload-{number}").as_bytes())
    });
    vec![
        Case::new("2.1").ping(b"").ends(),
        Case::new("2.2").ping(HELLO).ends(),
        Case::new("2.3").ping(&odd).ends(),
        Case::new("2.4, 2.6").ping(&[0xfe; 125]).ends(),
        Case::new("2.5").last(Ping, &[0xfe; 126]).fails(PROTOCOL),
        Case::new("2.7").last(Pong, b"").ends(),
        Case::new("2.8").last(Pong, b"unsolicited").ends(),
        Case::new("2.9")
            .last(Pong, b"unsolicited")
            .ping(b"ping")
            .ends(),
        ten.ends(),
    ]
}

fn reserved_bits() -> Vec<Case> {
    let third = |number: &str, bits: u8| {
        let case = Case::new(number).text(HELLO).frame(0x81 | bits, HELLO);
        case.last(Ping, b"").fails(PROTOCOL)
    };
    let alone = |number: &str, first: u8| Case::new(number).frame(first, HELLO).fails(PROTOCOL);
    vec![
        alone("3.1", 0x91),
        third("3.2", 0x20),
        third("3.3", 0x30),
        third("3.4", 0x40),
        alone("3.5", 0xd2),
        alone("3.6", 0xe9),
        alone("3.7", 0xf8),
    ]
}

fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, first_opcode) in [(1_u8, 3_u8), (2, 11)] {
        for number in 0..5 {
            let name = format!("4.{group}.{}", number + 1);
            let opcode = 0x80 | (first_opcode + number);
            let payload: &[u8] = if number % 2 == 0 { b"" } else { HELLO };
            let case = if number < 2 {
                Case::new(name).frame(opcode, payload)
            } else {
                Case::new(name).text(HELLO).frame(opcode, payload)
            };
            cases.push(case.last(Ping, b"").fails(PROTOCOL));
        }
    }
    cases
}

fn parts() -> Vec<Case> {
    [parts_in_order(), parts_out_of_order()].concat()
}

fn parts_in_order() -> Vec<Case> {
    let halves = |case: Case| case.part(Text, b"fragment1");
    let whole = Answer::Text(b"fragment1fragment2".to_vec());
    let five = |number: &str| {
        let case = Case::new(number).part(Text, b"fragment1");
        let case = case.part(Continuation, b"fragment2").ping(b"pongme 1!");
        let case = case.part(Continuation, b"fragment3");
        let case = case.part(Continuation, b"fragment4").ping(b"pongme 2!");
        let case = case.last(Continuation, b"fragment5");
        case.hears(Answer::Text(
            b"fragment1fragment2fragment3fragment4fragment5".to_vec(),
        ))
        .ends()
    };
    vec![
        halves(Case::new("5.3, 5.4, 5.5"))
            .last(Continuation, b"fragment2")
            .hears(whole.clone())
            .ends(),
        halves(Case::new("5.6, 5.7, 5.8"))
            .ping(b"ping payload")
            .last(Continuation, b"fragment2")
            .hears(whole)
            .ends(),
        five("5.19, 5.20"),
    ]
}

fn parts_out_of_order() -> Vec<Case> {
    let nothing = b"non-continuation payload";
    let behind = |case: Case| case.last(Text, HELLO).fails(PROTOCOL);
    let last = |case: Case| case.last(Continuation, nothing);
    let more = |case: Case| case.part(Continuation, nothing);
    vec![
        Case::new("5.1")
            .part(Ping, b"fragment1")
            .last(Continuation, b"fragment2")
            .fails(PROTOCOL),
        Case::new("5.2")
            .part(Pong, b"fragment1")
            .last(Continuation, b"fragment2")
            .fails(PROTOCOL),
        behind(last(Case::new("5.9, 5.10, 5.11"))),
        behind(more(Case::new("5.12, 5.13, 5.14"))),
        behind(more(Case::new("5.15").in_parts(
            Text,
            b"fragment1fragment2",
            9,
        ))),
        more(Case::new("5.16"))
            .part(Text, b"fragment1")
            .last(Continuation, b"fragment2")
            .fails(PROTOCOL),
        last(Case::new("5.17"))
            .part(Text, b"fragment1")
            .last(Continuation, b"fragment2")
            .fails(PROTOCOL),
        Case::new("5.18")
            .part(Text, b"fragment1")
            .last(Text, b"fragment2")
            .fails(PROTOCOL),
        Case::new("5.18, of two kinds")
            .part(Text, b"fragment1")
            .last(Binary, b"fragment2")
            .fails(PROTOCOL),
    ]
}
