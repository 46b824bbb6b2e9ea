//! Cases 9 and 10: large messages, in one frame and in parts, and many small ones.

use freshet_proto::ws::Opcode::{self, Binary, Text};

use super::Case;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The cases. One at a time, because the largest hold some tens of MiB.
pub fn large() -> impl Iterator<Item = Case> {
    let kinds = [(1, Text), (2, Binary)];
    let whole = kinds.into_iter().flat_map(|(group, opcode)| {
        let sizes = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB];
        numbered(
            group,
            sizes.into_iter().map(move |size| (opcode, size, size)),
        )
    });
    let kinds = [(3, Text), (4, Binary)];
    let parts = kinds.into_iter().flat_map(|(group, opcode)| {
        let sizes = (0..9).map(|power| 64 << (2 * power)).map(|part: usize| {
            // The suite's sizes are powers of four from 64 bytes on, the last is the whole.
            part.min(4 * MIB)
        });
        numbered(group, sizes.map(move |part| (opcode, 4 * MIB, part)))
    });
    whole.chain(parts).chain(many()).chain([auto_fragmented()])
}

fn numbered(
    group: usize,
    rows: impl Iterator<Item = (Opcode, usize, usize)>,
) -> impl Iterator<Item = Case> {
    rows.enumerate().map(move |(number, (opcode, size, part))| {
        let case = Case::new(format!("9.{group}.{}", number + 1));
        case.in_parts(opcode, &filler(size), part).ends()
    })
}

/// 9.5 and 9.6 cut one message in pieces, which is for who runs them; 9.7 and 9.8 are round trips.
fn many() -> impl Iterator<Item = Case> {
    let pieces = [(5, Text), (6, Binary)].into_iter().map(|(group, opcode)| {
        let case = Case::new(format!("9.{group}.1 to 9.{group}.6"));
        case.in_parts(opcode, &filler(MIB), MIB).ends()
    });
    let trips = [0, 16, 64, 256, 1024, 4096].into_iter().enumerate();
    let trips = trips.flat_map(|(number, size)| {
        [(7, Text), (8, Binary)].map(|(group, opcode)| {
            let mut case = Case::new(format!("9.{group}.{}", number + 1));
            for _ in 0..1_000 {
                case = if opcode == Text {
                    case.text(filler(size))
                } else {
                    case.binary(&filler(size))
                };
            }
            case.ends()
        })
    });
    pieces.chain(trips)
}

fn auto_fragmented() -> Case {
    Case::new("10.1.1")
        .in_parts(Text, &vec![b'*'; 65_536], 1_300)
        .ends()
}

/// So many bytes, which are text too.
fn filler(size: usize) -> Vec<u8> {
    let mut bytes = b"0123456789abcdef".repeat(size.div_ceil(16));
    bytes.truncate(size);
    bytes
}
