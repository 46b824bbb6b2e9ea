//! Whose request it is, when proxies that are trusted passed it on and say for whom.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;

/// The header that the trusted proxies write. One of the two, and never both: a proxy that adds to
/// one passes on the other as its client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which `for=` is read.
    Forwarded,
}

impl ForwardedHeader {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The address that one item of the list names.
    fn address(self, item: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => node(item.trim()),
            Self::Forwarded => item.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let is_for = name.trim().eq_ignore_ascii_case("for");
                is_for.then(|| node(value.trim().trim_matches('"')))?
            }),
        }
    }
}

/// An address with or without a port. Source: RFC 7239 section 6, and what proxies write.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    address.map(|address| address.to_canonical())
}

/// The client of a request that came from `peer`. The header's lines are read from the right, where
/// the nearest proxy wrote, past every proxy that is trusted: the first address that is not is the
/// client's. What stands left of it was sent by the client, and so does not count; where something
/// else than an address stands, the proxy that wrote it counts as the client.
pub(crate) fn client<'a>(
    config: &Config,
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let header = config.forwarded_header;
    let mut items = lines
        .rev()
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .flat_map(|line| line.rsplit(','));
    let mut client = peer;
    while config.forwarded_from.contains(client) {
        match items.next().and_then(|item| header.address(item)) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config_with;

    fn client_of(header: &str, peer: &str, lines: &[&str]) -> String {
        let options = [
            "--forwarded-from",
            "10.0.0.0/8",
            "--forwarded-header",
            header,
        ];
        let config = config_with(&options);
        let lines = lines.iter().map(|line| line.as_bytes());
        client(&config, peer.parse().unwrap(), lines).to_string()
    }

    #[test]
    fn the_first_address_from_the_right_that_is_not_trusted_is_the_client() {
        for (lines, client) in [
            (&["192.0.2.7"][..], "192.0.2.7"),
            (&["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            (&["192.0.2.7", "10.0.0.2,10.0.0.3"], "192.0.2.7"),
            // What the client itself has sent does not count.
            (&["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
            (&["203.0.113.9", "192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            (&["192.0.2.7:4711"], "192.0.2.7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            // No address: the proxy that wrote it.
            (&["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.7, \u{fffd}"], "10.0.0.1"),
            (&[], "10.0.0.1"),
            (&["10.0.0.9"], "10.0.0.9"),
        ] {
            assert_eq!(
                client_of("x-forwarded-for", "10.0.0.1", lines),
                client,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn the_for_of_forwarded_is_read() {
        for (lines, client) in [
            (&["for=192.0.2.7"][..], "192.0.2.7"),
            (
                &["For=\"192.0.2.7:4711\";proto=https;by=10.0.0.1"],
                "192.0.2.7",
            ),
            (&["by=_x; for=\"[2001:db8::7]\""], "2001:db8::7"),
            (&["for=192.0.2.7, for=10.0.0.2;proto=http"], "192.0.2.7"),
            // A quote that the client opened does not reach into what the proxy wrote.
            (&["for=\"203.0.113.9, for=192.0.2.7"], "192.0.2.7"),
            (&["for=_hidden"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(
                client_of("forwarded", "10.0.0.1", lines),
                client,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn who_is_not_trusted_is_not_believed() {
        let lines = ["192.0.2.7"];
        let client = client_of("x-forwarded-for", "203.0.113.9", &lines);
        assert_eq!(client, "203.0.113.9");
    }
}
