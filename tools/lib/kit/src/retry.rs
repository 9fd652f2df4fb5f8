//! Bounded backoff: the one way to try again, where nothing can be watched.

use std::time::{Duration, Instant};

use crate::{Error, Result, signal};

/// The waits between attempts: 50 ms, doubling up to 2 s.
pub fn delays() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_millis(50)), |delay| Some((*delay * 2).min(Duration::from_secs(2))))
}

/// Calls `attempt` until it gives something, waiting longer each time, at most `limit`.
///
/// An `Err` of `attempt` ends it at once.
///
/// # Errors
/// What `attempt` returns, [`crate::Cause::Interrupted`] after a signal, or `late` when the time is over.
pub fn until<T>(
    limit: Duration,
    late: impl FnOnce() -> Error,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    for delay in delays() {
        signal::check()?;
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        #[allow(clippy::disallowed_methods, reason = "the one place that sleeps")]
        std::thread::sleep(delay.min(left));
    }
    Err(late())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn ends_with_the_value_the_error_or_the_deadline() {
        let late = || Error::new(Cause::Node, "late");
        let mut left = 3;
        let value = until(Duration::from_secs(5), late, || {
            left -= 1;
            Ok((left == 0).then_some(7))
        });
        assert_eq!(value.unwrap(), 7);
        assert_eq!(until::<()>(Duration::from_millis(120), late, || Ok(None)).unwrap_err().cause, Cause::Node);
        let failed = until::<()>(Duration::from_secs(5), late, || Err(Error::new(Cause::Auth, "no")));
        assert_eq!(failed.unwrap_err().cause, Cause::Auth);
    }
}
