//! A client that polls: a read that waits for a change, again and again on one connection.

use std::rc::Rc;
use std::time::Duration;

use tokio::net::tcp::OwnedReadHalf;

use super::link::{Link, connect, receive};
use super::{Client, End};
use crate::audience::Audience;
use crate::clock::Micros;
use crate::http1::{BodyDecoder, Head, HttpError, parse_head};
use crate::state::Format;

/// An answer that is on its way.
#[derive(Default)]
struct Answer {
    /// The head's bytes until it is whole.
    partial: Vec<u8>,
    head: Option<(Head, BodyDecoder)>,
    body: Vec<u8>,
}

/// One connection, from its first request to its end.
pub(super) async fn session(audience: &Audience, client: &Rc<Client>) -> End {
    let timeout = audience.swarm.plan.ramp.handshake_timeout;
    let (mut read, write) = match tokio::time::timeout(timeout, connect(audience, client)).await {
        Ok(Ok(halves)) => halves,
        Ok(Err(end)) => return end,
        Err(_) => return End::Unreachable("no connection in time".to_owned()),
    };
    client.link.replace(Some(Rc::new(Link::new(write))));
    let mut etag: Option<String> = None;
    loop {
        // The first answer comes at once; then each waits for a change.
        let wait_seconds = if etag.is_some() {
            audience.swarm.plan.poll_wait_seconds
        } else {
            0
        };
        let request = audience.target.read_head(wait_seconds, etag.as_deref());
        client.send(request.into_bytes());
        let (head, body, now) = match receive_answer(audience, client, &mut read).await {
            Ok(answer) => answer,
            Err(end) => return end,
        };
        if head.status == 200 {
            if let Some(end) = audience.on_frame(client, Format::Body, &body, now) {
                return end;
            }
            etag = head.etag;
        } else if let (429 | 503, Some(seconds)) = (head.status, head.retry_after) {
            audience
                .swarm
                .count(client, |counters| counters.throttled += 1);
            tokio::time::sleep(spread(seconds, client.plan.index)).await;
        } else if head.status != 304 {
            let detail = format!("the read was answered with {}", head.status);
            return End::Unreachable(detail);
        }
        if head.is_last {
            return End::LastAnswer;
        }
    }
}

/// At least the asked time, and up to half of it more, so that clients do not all come back at
/// once.
pub(super) fn spread(seconds: u64, index: u32) -> Duration {
    // Source of 97 and 500: arbitrary, because a prime spreads neighbours over half a second.
    let share = u64::from(index) * 97 % 500;
    Duration::from_millis(seconds.saturating_mul(1000 + share))
}

pub(super) async fn receive_answer(
    audience: &Audience,
    client: &Client,
    read: &mut OwnedReadHalf,
) -> Result<(Head, Vec<u8>, Micros), End> {
    let mut answer = Answer::default();
    let mut at = Micros::default();
    loop {
        let end = receive(audience, client, read, |bytes, now| {
            at = now;
            answer
                .take(bytes)
                .err()
                .map(|error| End::Dropped(error.to_string()))
        })
        .await;
        if let Some(end) = end {
            return Err(end);
        }
        answer = match answer {
            Answer {
                head: Some((head, decoder)),
                body,
                ..
            } if decoder.is_done() => return Ok((head, body, at)),
            Answer { .. } => answer,
        };
    }
}

impl Answer {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let Some((_, decoder)) = &mut self.head else {
            self.partial.extend_from_slice(bytes);
            if let Some(head) = parse_head(&self.partial)? {
                let rest = self.partial.split_off(head.bytes);
                let decoder = BodyDecoder::new(head.framing);
                self.head = Some((head, decoder));
                return self.take(&rest);
            }
            return Ok(());
        };
        let body = &mut self.body;
        decoder.feed(bytes, |piece| body.extend_from_slice(piece))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_told_to_wait_waits_at_least_that_long_and_not_twice_as_long() {
        for index in 0..1000 {
            let wait = spread(2, index);
            assert!(wait >= Duration::from_secs(2) && wait < Duration::from_secs(3));
        }
        assert_ne!(spread(2, 1), spread(2, 2));
    }

    #[test]
    fn an_answer_is_whole_however_it_is_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\nhello";
        for size in 1..=bytes.len() {
            let mut answer = Answer::default();
            for piece in bytes.chunks(size) {
                answer.take(piece).unwrap();
            }
            let (head, decoder) = answer.head.unwrap();
            assert!(decoder.is_done());
            assert_eq!(
                (head.etag.as_deref(), answer.body.as_slice()),
                (Some("\"1\""), b"hello".as_slice())
            );
        }
    }
}
