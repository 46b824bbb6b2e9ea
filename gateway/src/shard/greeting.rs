//! `hello`: encoded once for a shard, because only the session differs from one connection to the
//! next.

use std::io::Write as _;

use freshet_fanout::ConnId;
use freshet_fanout::frame::Wire;
use freshet_proto::frame::{Hello, ServerFrame};
use freshet_proto::sse;
use freshet_proto::ws::{self, Opcode};

/// Bytes of a session's own part. Source: two numbers of 32 bits and a dot.
const SESSION_BYTES: usize = 21;

/// The JSON of `hello` before and behind the connection's own part of the session.
#[derive(Debug)]
pub(super) struct Greeting {
    before: Vec<u8>,
    behind: Vec<u8>,
    kind: &'static str,
}

impl Greeting {
    /// `hello.session` is what all sessions of the shard begin with, and is in no other field.
    pub(super) fn new(hello: Hello) -> Self {
        let session = hello.session.clone();
        let frame = ServerFrame::Hello(hello);
        let mut before = Vec::new();
        frame.encode(&mut before);
        let start = before
            .windows(session.len())
            .position(|part| part == session.as_bytes());
        let start = start.expect("a session of hex digits and dashes is not escaped");
        let behind = before.split_off(start + session.len());
        Self {
            before,
            behind,
            kind: frame.kind(),
        }
    }

    /// Appends the frame for one connection. Cost: one allocation.
    pub(super) fn write(&self, out: &mut Vec<u8>, wire: Wire, id: ConnId) {
        let bytes_max = self.before.len() + SESSION_BYTES + self.behind.len();
        let mut json = Vec::with_capacity(bytes_max);
        json.extend_from_slice(&self.before);
        write!(json, "{id}").expect("a vector takes everything");
        json.extend_from_slice(&self.behind);
        match wire {
            Wire::WebSocket => ws::write_frame(out, Opcode::Text, &json),
            Wire::Sse => sse::write_event(out, self.kind, None, &json),
            Wire::Body => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use freshet_fanout::encode::encode_frame;
    use freshet_fanout::time::Time;
    use freshet_fanout::{NewConn, Shard};
    use freshet_proto::frame::StreamLimits;
    use freshet_proto::ids::TenantId;
    use freshet_proto::principal::Edition;

    use super::*;

    fn hello(session: String) -> Hello {
        Hello {
            session,
            heartbeat_seconds: 25,
            limits: StreamLimits {
                subscriptions: 64,
                frame_bytes: 65_536,
                patterns: 64,
            },
        }
    }

    #[test]
    fn a_greeting_is_the_frame_that_would_be_encoded_for_the_connection() {
        let greeting = Greeting::new(hello("0a1b2c3d-0-".to_owned()));
        let mut core = Shard::new(Default::default(), Time::ZERO);
        for wire in [Wire::WebSocket, Wire::Sse] {
            let id = core.handle_open(
                Time::ZERO,
                &NewConn {
                    tenant: TenantId::new("t").unwrap(),
                    edition: Edition::Pro,
                    wire,
                },
            );
            let mut written = Vec::new();
            greeting.write(&mut written, wire, id);
            let whole = ServerFrame::Hello(hello(format!("0a1b2c3d-0-{id}")));
            assert_eq!(written, encode_frame(wire, &whole));
        }
    }
}
