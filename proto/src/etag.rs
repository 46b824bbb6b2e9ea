//! Entity tags as they come back: proxies that compress change them on the way.

/// What compressing proxies put behind the tag of what they have compressed, each with one of the
/// [`SEPARATORS`] in front. Source: Apache's mod_deflate and mod_brotli (`-gzip`, `-br`), Jetty
/// (`--gzip`), and `;gzip` of older Apaches.
const CODINGS: [&str; 4] = ["gzip", "br", "zstd", "deflate"];
/// Source: as above.
const SEPARATORS: [&str; 3] = ["--", "-", ";"];

/// The opaque part of a tag that a client sends back, as it was given out: without `W/`, without its
/// quotes, and without what a compressing proxy put behind it. None if it is no tag.
///
/// A weak tag is as good as a strong one: what is behind it has one content (ledger C-09).
pub fn opaque(tag: &str) -> Option<&str> {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let quoted = tag.strip_prefix('"')?;
    // Some put their mark behind the quote.
    let opaque = match quoted.strip_suffix('"') {
        Some(opaque) => uncompressed(opaque),
        None => uncompressed(quoted).strip_suffix('"')?,
    };
    (!opaque.contains('"')).then_some(opaque)
}

fn uncompressed(tag: &str) -> &str {
    let bare = CODINGS.iter().find_map(|coding| {
        let marked = tag.strip_suffix(coding)?;
        SEPARATORS.iter().find_map(|mark| marked.strip_suffix(mark))
    });
    bare.unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proxies_do_to_a_tag_is_undone() {
        for tag in [
            r#""17-42""#,
            r#"W/"17-42""#,
            r#" "17-42" "#,
            r#""17-42-gzip""#,
            r#""17-42--gzip""#,
            r#""17-42;gzip""#,
            r#""17-42-br""#,
            r#""17-42-zstd""#,
            r#"W/"17-42-gzip""#,
            r#""17-42"-gzip"#,
            r#""17-42";gzip"#,
        ] {
            assert_eq!(opaque(tag), Some("17-42"), "{tag}");
        }
        assert_eq!(
            opaque(r#""17-42-0123456789abcdef-gzip""#),
            Some("17-42-0123456789abcdef")
        );
    }

    #[test]
    fn what_is_no_tag_is_none() {
        for tag in ["", "17-42", "*", "\"", "\"17-42", "W/17", "\"17\"42\""] {
            assert_eq!(opaque(tag), None, "{tag:?}");
        }
        assert_eq!(opaque("\"\""), Some(""));
    }
}
