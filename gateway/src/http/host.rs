//! Every request names its host, once.

use http::Version;
use http::uri::Authority;

use crate::refusal::Refusal;

/// Checks the lines of `Host` of a request. Source: RFC 9112 section 3.2, a server must answer 400
/// where there is none, more than one, or one that is none. An empty one is a host without a name.
///
/// # Errors
///
/// The refusal.
pub(crate) fn check<'a>(
    version: Version,
    mut lines: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Refusal> {
    let detail = match (lines.next(), lines.next()) {
        (Some(host), None) if is_host(host) => return Ok(()),
        (None, None) if version < Version::HTTP_11 => return Ok(()),
        (Some(_), None) => "Host is not a host",
        (None, _) => "a request must name its Host",
        (Some(_), Some(_)) => "a request must name one Host",
    };
    Err(Refusal::malformed(detail))
}

fn is_host(host: &[u8]) -> bool {
    let host = host.trim_ascii();
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(version: Version, hosts: &[&str]) -> bool {
        check(version, hosts.iter().map(|host| host.as_bytes())).is_ok()
    }

    #[test]
    fn one_host_is_demanded() {
        for host in [
            "f",
            "f:7400",
            "127.0.0.1:7400",
            "[::1]:7400",
            "a-b.example",
            "",
        ] {
            assert!(is_taken(Version::HTTP_11, &[host]), "{host}");
        }
        for host in ["a b", "a/b", "user@f", "f\u{e9}", "a,b c", "[::1"] {
            assert!(!is_taken(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(!is_taken(Version::HTTP_11, &[]));
        assert!(!is_taken(Version::HTTP_11, &["f", "f"]));
        assert!(is_taken(Version::HTTP_10, &[]));
        assert!(!is_taken(Version::HTTP_10, &["f", "g"]));
    }
}
