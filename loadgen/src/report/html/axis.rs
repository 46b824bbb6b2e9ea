//! Axes: which part of a value's range is shown, where its ticks are, and how they are written.

use super::text;

/// Decades that a logarithmic axis shows at most. Source: arbitrary, because from 1 µs to 1 h are
/// fewer than ten.
const DECADES_MAX: f64 = 10.0;
/// Above so many times the smallest value, an axis of times is logarithmic. Source: arbitrary,
/// because then the smaller half of a linear plot's lines lies in its lowest 30 pixels.
const LOG_ABOVE: f64 = 40.0;
/// Nines that are shown at most. Source: arbitrary, because no run has 10^11 values.
const NINES_MAX: f64 = 11.0;
/// How many ticks a linear axis should have. Source: arbitrary, because labels of 11 pixels fit.
const TICKS: f64 = 5.0;
/// The same for time, which is the wider axis.
const TICKS_OF_TIME: f64 = 8.0;

/// What an axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Seconds since the start.
    Seconds,
    /// Milliseconds; logarithmic if they are far apart.
    Millis,
    /// Milliseconds, always logarithmic.
    LogMillis,
    /// Nines of a quantile: 0 is the smallest value, 1 is 90 %, 2 is 99 %.
    Nines,
    /// Of 100, from 0 to 100.
    Share,
    /// Of 100, from 0 to whatever there is.
    Percent,
    Number,
    Mebibytes,
}

/// An axis with its range.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    quantity: Quantity,
    is_log: bool,
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// An axis that shows all `values`; none if there are none.
    pub(super) fn over(quantity: Quantity, values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut range: Option<(f64, f64)> = None;
        for value in values.filter(|value| value.is_finite()) {
            let (low, high) = range.unwrap_or((value, value));
            range = Some((low.min(value), high.max(value)));
        }
        let (low, high) = range?;
        let is_log = match quantity {
            Quantity::LogMillis => true,
            Quantity::Millis => low > 0.0 && high / low > LOG_ABOVE,
            Quantity::Seconds
            | Quantity::Nines
            | Quantity::Share
            | Quantity::Percent
            | Quantity::Number
            | Quantity::Mebibytes => false,
        };
        Some(if is_log {
            Self::logarithmic(quantity, low, high)
        } else {
            Self::linear(quantity, low, high)
        })
    }

    fn logarithmic(quantity: Quantity, low: f64, high: f64) -> Self {
        // Source of 1e-12: arbitrary, because zero has no logarithm and is below every time.
        let (low, high) = (low.max(1e-12), high.max(1e-12));
        let below = |value: f64| round_ones(&[5.0, 2.0, 1.0], value, |round| round <= value);
        let above = |value: f64| round_ones(&[1.0, 2.0, 5.0, 10.0], value, |round| round >= value);
        let high = above(high).log10();
        let low = below(low).log10().max(high - DECADES_MAX);
        Self {
            quantity,
            is_log: true,
            // One value alone gets half a decade around it.
            low: if low < high { low } else { high - 0.5 },
            high,
            step: 1.0,
        }
    }

    fn linear(quantity: Quantity, low: f64, high: f64) -> Self {
        let (low, high) = match quantity {
            Quantity::Share => (0.0, 100.0),
            Quantity::Nines => (0.0, high.clamp(1.0, NINES_MAX)),
            Quantity::Seconds => (low, high.max(low + 1.0)),
            Quantity::Millis
            | Quantity::LogMillis
            | Quantity::Percent
            | Quantity::Number
            | Quantity::Mebibytes => (0.0, if high > 0.0 { high } else { 1.0 }),
        };
        let ticks = match quantity {
            Quantity::Seconds => TICKS_OF_TIME,
            Quantity::Millis
            | Quantity::LogMillis
            | Quantity::Nines
            | Quantity::Share
            | Quantity::Percent
            | Quantity::Number
            | Quantity::Mebibytes => TICKS,
        };
        let step = match quantity {
            Quantity::Nines => 1.0,
            // Source: quarters are what people read.
            Quantity::Share => 25.0,
            Quantity::Seconds
            | Quantity::Millis
            | Quantity::LogMillis
            | Quantity::Percent
            | Quantity::Number
            | Quantity::Mebibytes => nice_step((high - low) / ticks),
        };
        // Time and quantiles end where the run ends; other axes end with a tick.
        let high = match quantity {
            Quantity::Seconds | Quantity::Nines => high,
            Quantity::Millis
            | Quantity::LogMillis
            | Quantity::Share
            | Quantity::Percent
            | Quantity::Number
            | Quantity::Mebibytes => (high / step).ceil() * step,
        };
        Self {
            quantity,
            is_log: false,
            low,
            high,
            step,
        }
    }

    /// Where a value is, from 0 to 1; outside of the range it is at its border.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.is_log {
            value.max(f64::MIN_POSITIVE).log10()
        } else {
            value
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The values that have a tick and a label.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            return self.log_ticks();
        }
        let first = (self.low / self.step).ceil();
        // Source of 1e-9: rounding may put the last tick behind the end.
        let last = (self.high / self.step + 1e-9).floor();
        let count = (last - first).max(0.0) as usize;
        (0..=count)
            .map(|index| (first + index as f64) * self.step)
            .collect()
    }

    /// The powers of ten, and twice and five times them if these are few.
    fn log_ticks(&self) -> Vec<f64> {
        // Source of 2: arbitrary, because three labels to a decade fit twice.
        let factors: &[f64] = if self.high - self.low <= 2.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        // Source of 1e-9: rounding may put the border's own tick outside.
        let shown = self.low - 1e-9..=self.high + 1e-9;
        decades
            .flat_map(|decade| {
                factors
                    .iter()
                    .map(move |factor| factor * 10f64.powi(decade))
            })
            .filter(|tick| shown.contains(&tick.log10()))
            .collect()
    }

    /// A tick's label.
    pub(super) fn label(&self, tick: f64) -> String {
        match self.quantity {
            Quantity::Seconds => clock(tick),
            Quantity::Millis | Quantity::LogMillis => round_millis(tick),
            Quantity::Nines => quantile(tick),
            Quantity::Share | Quantity::Percent => format!("{} %", short(tick)),
            Quantity::Number => short(tick),
            Quantity::Mebibytes => format!("{} MiB", short(tick)),
        }
    }

    /// A value as it is told when it is pointed at.
    pub(super) fn value(&self, value: f64) -> String {
        match self.quantity {
            Quantity::Seconds => clock(value),
            Quantity::Millis | Quantity::LogMillis => text::millis(value),
            Quantity::Nines => quantile(value),
            Quantity::Share => format!("{value:.2} %"),
            Quantity::Percent => format!("{value:.1} %"),
            Quantity::Number => text::number(value),
            Quantity::Mebibytes => format!("{value:.1} MiB"),
        }
    }
}

/// The first of the `factors` times the power of ten below `value` that fits.
fn round_ones(factors: &[f64], value: f64, fits: impl Fn(f64) -> bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let round = factors.iter().map(|factor| factor * power);
    let mut round = round.filter(|round| fits(*round));
    round.next().unwrap_or(value)
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        // Source of 1 - 1e-9: rounding may put a step just above a factor.
        .find(|factor| factor * power >= step * (1.0 - 1e-9))
        .unwrap_or(10.0);
    factor * power
}

/// Seconds of a run: `12 s`, `3:05`.
fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    // Source of 600: arbitrary, because ten minutes read well in seconds.
    if whole < 600 {
        return format!("{} s", short(seconds));
    }
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A tick of a time axis, with no more digits than it needs.
fn round_millis(millis: f64) -> String {
    match millis {
        0.0 => "0".to_owned(),
        ..0.999 => format!("{} µs", short(millis * 1000.0)),
        ..999.9 => format!("{} ms", short(millis)),
        _ => format!("{} s", short(millis / 1000.0)),
    }
}

/// Nines as a percentage: 2 is `99 %`, 3.5 is `99.97 %`.
fn quantile(nines: f64) -> String {
    let digits = (nines.ceil() - 1.0).clamp(0.0, 8.0) as usize;
    let percent = 100.0 - 100.0 * 10f64.powf(-nines);
    let text = format!("{percent:.digits$}");
    if !text.contains('.') {
        return format!("{text} %");
    }
    // 99.90 is three nines and no more.
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// With as many digits as a tick needs, and thousands as `k`.
fn short(value: f64) -> String {
    if value >= 10_000.0 {
        return if value >= 1e6 {
            format!("{}M", trimmed(value / 1e6))
        } else {
            format!("{}k", trimmed(value / 1e3))
        };
    }
    trimmed(value)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(quantity: Quantity, values: &[f64]) -> Vec<String> {
        let axis = Axis::over(quantity, values.iter().copied()).unwrap();
        let ticks = axis.ticks();
        ticks.into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        assert_eq!(
            labels(Quantity::Number, &[3.0, 93_000.0]),
            ["0", "20k", "40k", "60k", "80k", "100k"]
        );
        assert_eq!(
            labels(Quantity::Millis, &[0.9, 3.1]),
            ["0", "1 ms", "2 ms", "3 ms", "4 ms"]
        );
        assert_eq!(
            labels(Quantity::Seconds, &[0.0, 29.0]),
            ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s"]
        );
        assert_eq!(labels(Quantity::Share, &[7.0]).last().unwrap(), "100 %");
    }

    #[test]
    fn times_that_are_far_apart_are_shown_by_decades() {
        assert_eq!(
            labels(Quantity::Millis, &[0.5, 900.0]),
            ["1 ms", "10 ms", "100 ms", "1 s"]
        );
        assert_eq!(
            labels(Quantity::LogMillis, &[3.0, 40.0]),
            ["2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]
        );
        let axis = Axis::over(Quantity::LogMillis, [1.0, 100.0].into_iter()).unwrap();
        assert_eq!(
            [1.0, 10.0, 100.0, 1e9].map(|value| axis.place(value)),
            [0.0, 0.5, 1.0, 1.0]
        );
    }

    #[test]
    fn quantiles_are_written_with_their_nines() {
        assert_eq!(
            labels(Quantity::Nines, &[0.0, 4.2]),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn an_axis_without_values_is_none_and_one_value_is_enough() {
        assert!(Axis::over(Quantity::Number, [f64::NAN].into_iter()).is_none());
        for quantity in [
            Quantity::Seconds,
            Quantity::Millis,
            Quantity::LogMillis,
            Quantity::Nines,
            Quantity::Share,
            Quantity::Percent,
            Quantity::Number,
            Quantity::Mebibytes,
        ] {
            for value in [0.0, 1.0, 1e-9, 1e12] {
                let axis = Axis::over(quantity, [value].into_iter()).unwrap();
                assert!(
                    (0.0..=1.0).contains(&axis.place(value)),
                    "{quantity:?} {value}"
                );
                let ticks = axis.ticks().len();
                assert!((1..=12).contains(&ticks), "{quantity:?} {value}: {ticks}");
            }
        }
    }
}
