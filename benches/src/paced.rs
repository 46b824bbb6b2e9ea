//! Questions on a schedule that does not wait for answers.

use std::time::Duration;

use crate::clock::monotonic_micros;

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;

/// Asks `rate` times a second for so long, with the time that each was due; answers how long each
/// took from then, in microseconds.
///
/// One question is under way at a time: a slow answer makes the next ones late, and their time no
/// later.
///
/// # Errors
///
/// The first question's that has no answer.
pub(crate) fn ask<E>(
    rate: u32,
    duration: Duration,
    mut question: impl FnMut(u64) -> Result<(), E>,
) -> Result<Vec<u64>, E> {
    let gap = SECOND / u64::from(rate);
    let count = duration.as_micros() as u64 / gap;
    let start = monotonic_micros();
    let mut waits = Vec::new();
    for number in 0..count {
        let due = start + number * gap;
        let wait = due.saturating_sub(monotonic_micros());
        std::thread::sleep(Duration::from_micros(wait));
        question(due)?;
        waits.push(monotonic_micros() - due);
    }
    Ok(waits)
}

/// The p99 of waits in microseconds, in milliseconds.
pub(crate) fn p99_millis(mut waits: Vec<u64>) -> f64 {
    waits.sort_unstable();
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or(0);
    p99 as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_makes_the_next_wait_longer() {
        let duration = Duration::from_millis(20);
        let mut asked = 0;
        let waits: Result<_, ()> = ask(100, duration, |_| {
            asked += 1;
            if asked == 1 {
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(())
        });
        let waits = waits.unwrap();
        assert_eq!(waits.len(), 2);
        assert!(waits[0] >= 30_000 && waits[1] >= 20_000, "{waits:?}");
    }

    #[test]
    fn a_p99_is_one_of_the_waits() {
        assert_eq!(
            p99_millis((1..=100).map(|wait| wait * 1_000).collect()),
            100.0
        );
        assert_eq!(p99_millis(Vec::new()), 0.0);
    }
}
