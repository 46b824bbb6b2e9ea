//! A histogram of times in the form in which it is stored, sent, merged and plotted.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::latency::histogram;

/// Largest text of a histogram. Source: [`PLAIN_BYTES_MAX`] in base64; deflate makes it smaller.
const TEXT_BYTES_MAX: usize = PLAIN_BYTES_MAX / 3 * 4;
/// Largest histogram before deflate. Source: 24,576 counters of at most nine bytes each, which is
/// what the bounds of `crate::latency::histogram` lead to, and a head of 40 bytes.
const PLAIN_BYTES_MAX: usize = 24_576 * 9 + HEAD_BYTES;
/// Source: the V2 format of HdrHistogram: cookie, payload's length, offset, digits (4 bytes each),
/// lowest and highest value, ratio (8 each).
const HEAD_BYTES: usize = 40;
/// Cookie and length in front of the deflated bytes. Source: the V2 format of HdrHistogram.
const DEFLATED_HEAD_BYTES: usize = 8;

/// How long something took, in microseconds with three significant digits.
///
/// The percentiles are there for readers of the JSON; what counts is the histogram, from which they
/// are computed again when a report is read.
///
/// Cost: 1 to 20 KiB; a live histogram takes 190.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Stored")]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// HdrHistogram's V2 format, deflated, in base64.
    histogram: String,
}

/// The part of the JSON that is believed.
#[derive(Deserialize)]
struct Stored {
    histogram: String,
}

/// Why a text is not a histogram of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LatencyError {
    #[error("a histogram is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("a histogram is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("a histogram is cut off or not deflated: {0}")]
    Deflate(#[from] std::io::Error),
    #[error("a histogram has other bounds than 1 µs to 1 h with three digits")]
    Bounds,
    #[error("a histogram cannot be read: {0}")]
    Format(#[from] hdrhistogram::serialization::DeserializeError),
}

impl Latency {
    /// Of a histogram with the bounds of `crate::latency::histogram`.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .expect("writing to memory does not fail");
        let millis = |micros: u64| micros as f64 / 1000.0;
        let quantile = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: millis(histogram.max()),
            histogram: STANDARD.encode(bytes),
        }
    }

    /// The histogram, to be plotted or added to.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        unpack(&self.histogram).expect("it was packed here or checked when it was read")
    }

    /// Adds the values of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut all = self.histogram();
        all.add(other.histogram())
            .expect("both have the same bounds");
        *self = Self::of(&all);
    }
}

impl TryFrom<Stored> for Latency {
    type Error = LatencyError;

    fn try_from(stored: Stored) -> Result<Self, LatencyError> {
        Ok(Self::of(&unpack(&stored.histogram)?))
    }
}

/// Reads a histogram; its size and bounds are checked before anything of its size is allocated.
fn unpack(text: &str) -> Result<Histogram<u64>, LatencyError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(LatencyError::TooLong);
    }
    let deflated = STANDARD.decode(text)?;
    let body = deflated
        .get(DEFLATED_HEAD_BYTES..)
        .ok_or(LatencyError::Bounds)?;
    let mut plain = Vec::new();
    ZlibDecoder::new(body)
        .take(PLAIN_BYTES_MAX as u64)
        .read_to_end(&mut plain)?;
    let mut ours = Vec::new();
    hdrhistogram::serialization::V2Serializer::new()
        .serialize(&histogram(), &mut ours)
        .expect("writing to memory does not fail");
    // The first word tells the format, the second one the length of what follows the head; the
    // others are the bounds.
    let same = |range: std::ops::Range<usize>| plain.get(range.clone()) == ours.get(range);
    // Source of 4, 8: the place of the length in the head.
    let length = plain.get(4..8).and_then(|bytes| bytes.try_into().ok());
    let length = u32::from_be_bytes(length.ok_or(LatencyError::Bounds)?);
    if !same(0..4) || !same(8..HEAD_BYTES) || length as usize != plain.len() - HEAD_BYTES {
        return Err(LatencyError::Bounds);
    }
    Ok(Deserializer::new().deserialize(&mut plain.as_slice())?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Latency {
        let mut all = histogram();
        for value in values {
            all.record(*value).unwrap();
        }
        Latency::of(&all)
    }

    proptest! {
        #[test]
        fn merged_parts_are_what_one_would_have_measured(
            one in prop::collection::vec(1u64..3_600_000_000, 0..50),
            other in prop::collection::vec(1u64..3_600_000_000, 0..50),
        ) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }

        #[test]
        fn a_histogram_survives_the_json(values in prop::collection::vec(1u64..3_600_000_000, 0..50)) {
            let latency = of(&values);
            let json = serde_json::to_string(&latency).unwrap();
            prop_assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), latency);
        }

        #[test]
        fn no_text_is_read_as_a_histogram_by_mistake(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unpack(&STANDARD.encode(bytes)).is_err());
        }
    }

    #[test]
    fn percentiles_in_the_json_are_not_believed() {
        let json = serde_json::to_string(&of(&[1000, 2000])).unwrap();
        let doctored = json.replace("\"count\":2", "\"count\":9");
        assert_ne!(json, doctored);
        assert_eq!(serde_json::from_str::<Latency>(&doctored).unwrap().count, 2);
    }

    #[test]
    fn a_histogram_of_other_bounds_is_refused_before_it_is_built() {
        let mut bytes = Vec::new();
        // Source of u64::MAX / 4 and 5: they would take tens of megabytes.
        let other = Histogram::<u64>::new_with_bounds(1, u64::MAX / 4, 5).unwrap();
        V2DeflateSerializer::new()
            .serialize(&other, &mut bytes)
            .unwrap();
        let error = unpack(&STANDARD.encode(&bytes)).unwrap_err();
        assert!(matches!(error, LatencyError::Bounds), "{error}");
        assert!(matches!(
            unpack(&"A".repeat(TEXT_BYTES_MAX + 1)),
            Err(LatencyError::TooLong)
        ));
    }
}
