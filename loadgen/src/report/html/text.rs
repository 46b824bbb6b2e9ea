//! Text for people: numbers with their units, and whatever came from outside made harmless.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A text that may be put between tags and into a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters have no meaning here, and NUL is not allowed in HTML.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A time in milliseconds.
pub(super) fn millis(value: f64) -> String {
    match value {
        0.0 => "0 ms".to_owned(),
        ..1.0 => format!("{:.0} µs", value * 1000.0),
        ..10.0 => format!("{value:.2} ms"),
        ..100.0 => format!("{value:.1} ms"),
        ..1000.0 => format!("{value:.0} ms"),
        _ => format!("{:.2} s", value / 1000.0),
    }
}

/// A count, in groups of three digits.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // A narrow space, at which no line is broken.
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate or another number with a fraction; the fraction goes when it says nothing.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        // Source of 100 and 10: three digits are enough for people.
        100.0.. => count(value.round() as u64),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A size in bytes.
pub(super) fn bytes(value: f64) -> String {
    let mut scaled = value;
    for unit in ["B", "KiB", "MiB"] {
        if scaled < 1024.0 {
            return format!("{} {unit}", number(scaled));
        }
        scaled /= 1024.0;
    }
    format!("{} GiB", number(scaled))
}

/// New over old; none if the old one was zero.
pub(super) fn ratio(new: f64, old: f64) -> Option<String> {
    (old > 0.0).then(|| format!("{:.2}\u{202f}×", new / old))
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`; none if no calendar has the year.
pub(super) fn date(unix_seconds: u64) -> Option<String> {
    let seconds = i64::try_from(unix_seconds).ok()?;
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    date.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_from_outside_is_text() {
        let hostile = "<script>alert('x & \"y\"')</script>\0";
        let expected =
            "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;\u{fffd}";
        assert_eq!(escape(hostile), expected);
    }

    #[test]
    fn numbers_have_the_unit_that_reads_best() {
        assert_eq!(millis(0.25), "250 µs");
        assert_eq!(millis(9.994), "9.99 ms");
        assert_eq!(millis(12_345.0), "12.35 s");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(123), "123");
        assert_eq!((number(0.0).as_str(), number(0.5).as_str()), ("0", "0.50"));
        assert_eq!(bytes(2048.0), "2.00 KiB");
        assert_eq!(bytes(150.0 * 1024.0 * 1024.0), "150 MiB");
        assert_eq!(ratio(3.0, 2.0).unwrap(), "1.50\u{202f}×");
        assert_eq!(ratio(3.0, 0.0), None);
    }

    #[test]
    fn a_date_is_written_as_the_standard_says() {
        assert_eq!(date(951_827_696).unwrap(), "2000-02-29T12:34:56Z");
        assert_eq!(date(u64::MAX), None);
    }
}
