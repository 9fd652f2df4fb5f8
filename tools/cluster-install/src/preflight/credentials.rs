//! Certificates and logins that expire before a run can end.

use std::time::Duration;

use cluster::credentials::{self, Expiry, expiries};
use jiff::{SignedDuration, Timestamp};
use kit::{Cause, ui::duration};

use super::row::Row;

/// Looks at everything that the kubeconfig, the API server and the logins to registries show with an end.
pub(crate) fn row(opened: &cluster::Opened, logins: Option<&str>, lasts: Duration) -> Row {
    match expiries(opened) {
        Ok(mut all) => {
            all.extend(logins.into_iter().flat_map(credentials::logins));
            judge(&all, lasts, Timestamp::now())
        }
        Err(error) => Row::error("credentials", &error),
    }
}

fn judge(all: &[Expiry], lasts: Duration, now: Timestamp) -> Row {
    let left = |expiry: &Expiry| expiry.at.duration_since(now);
    let needed = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
    let words = |expiry: &Expiry| match Duration::try_from(left(expiry)) {
        Ok(rest) if !rest.is_zero() => {
            format!(
                "{} expires in {}, at {:.0}; the run may last {}",
                expiry.what,
                duration(rest),
                expiry.at,
                duration(lasts)
            )
        }
        _ => format!("{} expired at {:.0}", expiry.what, expiry.at),
    };
    let wrong: Vec<_> = all.iter().filter(|expiry| left(expiry) < needed).map(words).collect();
    let first = all.iter().min_by_key(|expiry| expiry.at);
    let good = first.map_or_else(
        || "nothing has an end that could be seen".to_owned(),
        |first| format!("{} of them; the first to expire is {}, at {:.0}", all.len(), first.what, first.at),
    );
    Row::of("credentials", Cause::Auth, &wrong, good)
        .next_if_unfit("renew it, or say with --for how long the run lasts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_during_the_run_is_named() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let expiry = |what: &str, minutes: i64| Expiry {
            what: what.into(),
            at: now.checked_add(SignedDuration::from_mins(minutes)).unwrap(),
        };
        let hour = Duration::from_secs(3600);
        assert!(
            judge(&[expiry("the token", 90), expiry("the certificate", 61)], hour, now)
                .line
                .contains("first to expire is the certificate")
        );
        let row = judge(&[expiry("the token", 30), expiry("the certificate", -5)], hour, now);
        assert_eq!(row.cause, Some(Cause::Auth));
        assert!(row.line.contains("the token expires in 30 min 00 s"), "{}", row.line);
        assert!(row.line.contains("the certificate expired at"), "{}", row.line);
        assert!(judge(&[], hour, now).line.contains("nothing has an end"));
    }
}
