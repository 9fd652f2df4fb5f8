//! How much slower the nodes are than the machine that tests are made for, and what follows for limits.

use std::time::Duration;

use kit::{Cause, Error, Result};

/// Slower than that is no use for tests.
const SLOWEST: f64 = 64.0;
/// Up to here everything keeps its time.
const SAME: f64 = 1.5;
/// What lengths of time are multiplied by: few values, so that a test program need not be compiled anew because today's
/// measure is a little different, and near enough to each other that a measure just above one costs half as much again.
const FACTORS: [u32; 11] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// The nodes' pace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// How much slower the nodes are.
    pub slowdown: f64,
    /// Who says so.
    pub source: &'static str,
}

impl Default for Pace {
    fn default() -> Self {
        Self { slowdown: 1.0, source: "nobody" }
    }
}

impl Pace {
    /// What the caller says, otherwise what was measured when the component was installed.
    #[must_use]
    pub fn new(said: Option<f64>, measured: Option<f64>) -> Self {
        let known = |slowdown: Option<f64>, source| slowdown.map(|slowdown| Self { slowdown, source });
        let pace = known(said, "--slowdown").or_else(|| known(measured, "install.json")).unwrap_or_default();
        // A record may hold anything.
        Self { slowdown: if pace.slowdown >= 1.0 { pace.slowdown.min(SLOWEST) } else { 1.0 }, ..pace }
    }

    /// What lengths of time are multiplied by: 1, or the first of [`FACTORS`] that is enough.
    #[must_use]
    pub fn factor(&self) -> u32 {
        if self.slowdown < SAME {
            return 1;
        }
        FACTORS.into_iter().find(|factor| f64::from(*factor) >= self.slowdown).unwrap_or(64)
    }

    /// A length of time at this pace.
    #[must_use]
    pub fn stretch(&self, length: Duration) -> Duration {
        length.saturating_mul(self.factor())
    }
}

/// A value of `--slowdown`.
///
/// # Errors
/// In words, if it is none.
pub fn parse(text: &str) -> Result<f64> {
    let number = text.parse().ok().filter(|number: &f64| (1.0..=SLOWEST).contains(number));
    number.ok_or_else(|| {
        Error::new(Cause::Usage, format!("'{text}' is no slowdown")).next(format!("write a number from 1 to {SLOWEST}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_it_counts_before_what_was_measured() {
        for (said, measured, slowdown, factor) in [
            (None, None, 1.0, 1),
            (None, Some(1.3), 1.3, 1),
            (None, Some(11.2), 11.2, 12),
            (None, Some(15.8), 15.8, 16),
            (None, Some(16.1), 16.1, 24),
            (Some(4.0), Some(11.2), 4.0, 4),
            (None, Some(1e9), 64.0, 64),
            (None, Some(0.2), 1.0, 1),
            (None, Some(f64::NAN), 1.0, 1),
            (Some(1.5), None, 1.5, 2),
        ] {
            let pace = Pace::new(said, measured);
            assert_eq!((pace.slowdown, pace.factor()), (slowdown, factor), "{said:?} {measured:?}");
        }
        assert_eq!(Pace::new(Some(3.5), None).stretch(Duration::from_secs(2)), Duration::from_secs(8));
        for text in ["", "0.5", "-1", "65", "NaN", "inf", "fast"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("12.5").unwrap(), 12.5);
    }
}
