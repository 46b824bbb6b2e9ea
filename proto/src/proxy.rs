//! The head that a proxy puts before a connection, to say whose it is: the PROXY protocol, version 2.
//!
//! Source of every number: HAProxy's `proxy-protocol.txt`, section 2.2. Version 1, which is a line of
//! text, is recognised and refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a head begins with, which no request does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a head of version 1 begins with.
const SIGNATURE_1: &[u8; 6] = b"PROXY ";
/// Bytes before the addresses: the signature, version and command, family, two of length.
const FIXED_BYTES: usize = 16;

/// Bytes of a whole head. Source: arbitrary, because the longest addresses have 216 bytes, and the
/// additions that proxies and clouds send some hundreds; who sends 64 KiB wants them held.
pub const PROXY_HEAD_BYTES_MAX: usize = 2048;

/// Bytes of the two addresses and ports of a family.
const V4_BYTES: usize = 12;
/// As above.
const V6_BYTES: usize = 36;
/// As above: two paths.
const UNIX_BYTES: usize = 216;

/// A head that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHead {
    /// The address of the client. None where the proxy speaks for itself, as for its checks of
    /// health, or for a client without an IP address: then it is the address of the connection.
    pub client: Option<IpAddr>,
    /// The bytes it has. What the client sent begins behind them.
    pub bytes: usize,
}

/// Why bytes are not such a head. Each of them ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// A head of version 1.
    #[error("the PROXY protocol's version 1 is not read; send version 2")]
    Version1,
    /// Something else, such as a request.
    #[error("a connection of this proxy must begin with the PROXY protocol, version 2")]
    Signature,
    /// Neither version 2, nor a command of it.
    #[error("the PROXY protocol's version or command is not known")]
    Command,
    /// A family of addresses, or a protocol, that is not defined.
    #[error("the PROXY protocol's address family is not known")]
    Family,
    /// Fewer bytes than the addresses of the family have.
    #[error("the PROXY protocol's head is too short for its addresses")]
    TooShort,
    /// More bytes than are held for anybody.
    #[error("the PROXY protocol's head has more than {PROXY_HEAD_BYTES_MAX} bytes")]
    TooLong,
}

/// What the addresses of a head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    /// The upper half is the family, the lower the protocol: none, a stream, or datagrams.
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x00 => Some(Self::Unspecified),
            0x11 | 0x12 => Some(Self::V4),
            0x21 | 0x22 => Some(Self::V6),
            0x31 | 0x32 => Some(Self::Unix),
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => V4_BYTES,
            Self::V6 => V6_BYTES,
            Self::Unix => UNIX_BYTES,
        }
    }
}

/// Reads a head from the front of what has come so far; none while it is not whole.
///
/// # Errors
///
/// [`ProxyError`], as soon as no further bytes can make it a head: the caller closes the connection.
pub fn read_head(bytes: &[u8]) -> Result<Option<ProxyHead>, ProxyError> {
    let begins_as = |signature: &[u8]| bytes.iter().zip(signature).all(|(one, other)| one == other);
    if !begins_as(SIGNATURE) {
        return if !begins_as(SIGNATURE_1) {
            Err(ProxyError::Signature)
        } else if bytes.len() < SIGNATURE_1.len() {
            Ok(None)
        } else {
            Err(ProxyError::Version1)
        };
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyError::Command),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = FIXED_BYTES + length;
    if whole > PROXY_HEAD_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    // Who speaks for itself may say anything of addresses; it is passed over.
    let family = if is_proxied {
        Family::from_byte(family).ok_or(ProxyError::Family)?
    } else {
        Family::Unspecified
    };
    if length < family.bytes() {
        return Err(ProxyError::TooShort);
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..whole) else {
        return Ok(None);
    };
    Ok(Some(ProxyHead {
        client: client(family, addresses),
        bytes: whole,
    }))
}

/// The first address is the client's.
fn client(family: Family, addresses: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Unspecified | Family::Unix => None,
        Family::V4 => addresses
            .first_chunk::<4>()
            .map(|octets| Ipv4Addr::from(*octets).into()),
        Family::V6 => addresses
            .first_chunk::<16>()
            .map(|octets| Ipv6Addr::from(*octets).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A head as the specification lays it out.
    fn head(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let mut bytes = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".to_vec();
        bytes.extend([command, family]);
        bytes.extend(length);
        bytes.extend(rest);
        bytes
    }

    fn v4() -> Vec<u8> {
        head(
            0x21,
            0x11,
            &[192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x1c, 0xe8],
        )
    }

    fn client(bytes: &[u8]) -> Option<IpAddr> {
        let head = read_head(bytes).unwrap().expect("it is whole");
        assert_eq!(head.bytes, bytes.len());
        head.client
    }

    #[test]
    fn the_first_address_is_the_clients() {
        assert_eq!(client(&v4()), Some([192, 0, 2, 7].into()));
        let of_v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut addresses = of_v6.octets().to_vec();
        addresses.extend([0xff; 16]);
        addresses.extend([0x30, 0x39, 0x1c, 0xe8]);
        assert_eq!(client(&head(0x21, 0x21, &addresses)), Some(of_v6.into()));
    }

    #[test]
    fn who_has_no_address_has_that_of_the_connection() {
        assert_eq!(client(&head(0x20, 0x00, b"")), None);
        assert_eq!(client(&head(0x20, 0x11, &[9; 12])), None, "LOCAL");
        assert_eq!(
            client(&head(0x20, 0x77, b"?")),
            None,
            "LOCAL, whatever follows"
        );
        assert_eq!(client(&head(0x21, 0x00, b"anything")), None, "UNSPEC");
        assert_eq!(client(&head(0x21, 0x31, &[b'/'; 216])), None, "UNIX");
    }

    #[test]
    fn additions_behind_the_addresses_are_passed_over() {
        // PP2_TYPE_AUTHORITY, five bytes.
        let tlv = [&[0x02, 0, 5][..], b"a.com"].concat();
        let rest = [&[192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2][..], &tlv].concat();
        let mut bytes = head(0x21, 0x11, &rest);
        let length = bytes.len();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let read = read_head(&bytes).unwrap().unwrap();
        assert_eq!(read.bytes, length, "what the client sent is behind it");
        assert_eq!(read.client, Some([192, 0, 2, 7].into()));
    }

    #[test]
    fn what_is_no_head_is_refused_at_its_first_wrong_byte() {
        for (bytes, error) in [
            (b"G".to_vec(), ProxyError::Signature),
            (b"\r\n\r\nG".to_vec(), ProxyError::Signature),
            (b"PROXY TCP4 192.0.2.7".to_vec(), ProxyError::Version1),
            (b"PROXIES".to_vec(), ProxyError::Signature),
            (head(0x11, 0x11, &[0; 12]), ProxyError::Command),
            (head(0x22, 0x11, &[0; 12]), ProxyError::Command),
            (head(0x21, 0x41, &[0; 12]), ProxyError::Family),
            (head(0x21, 0x10, &[0; 12]), ProxyError::Family),
            (head(0x21, 0x11, &[0; 11]), ProxyError::TooShort),
            (head(0x21, 0x21, &[0; 35]), ProxyError::TooShort),
            (head(0x21, 0x31, &[0; 215]), ProxyError::TooShort),
            (head(0x21, 0x00, &[0; 2033]), ProxyError::TooLong),
        ] {
            assert_eq!(read_head(&bytes), Err(error), "{bytes:x?}");
        }
        // The length is refused before the bytes are there.
        let long = &head(0x21, 0x11, &[0; 4096])[..16];
        assert_eq!(read_head(long), Err(ProxyError::TooLong));
    }

    #[test]
    fn a_head_in_pieces_is_waited_for() {
        let whole = v4();
        for length in 0..whole.len() {
            assert_eq!(read_head(&whole[..length]), Ok(None), "{length} bytes");
        }
        assert_eq!(read_head(b"PROX"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_and_more_change_no_answer(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            cut in 0usize..80,
        ) {
            let bytes = [&v4()[..cut.min(16)], &bytes].concat();
            for length in 0..bytes.len() {
                let early = read_head(&bytes[..length]);
                if early != Ok(None) {
                    prop_assert_eq!(early, read_head(&bytes));
                }
            }
        }
    }
}
