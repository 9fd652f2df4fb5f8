//! Requests to the API server that live through its restarts: bounded, and never again what it refused.

use std::{future::Future, time::Duration};

use cluster::{cause_of, fail};
use kit::{Cause, Result, retry};
use tokio::time::Instant;

/// How long an API server may be away: a restart takes seconds, a control plane's upgrade a minute.
const AWAY: Duration = Duration::from_secs(90);

/// How long one answer may take: long enough for a page of large objects over a slow line. A connection that
/// swallows what is sent would otherwise hold us up as long as a watch may be silent.
const ANSWER: Duration = Duration::from_secs(60);

/// How many requests are under way at the same time. The API server's own fairness limits us further.
pub(crate) const CONCURRENT: usize = 24;

/// How long to bear with an API server that does not answer.
pub(crate) struct Patience {
    began: Instant,
    delays: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Patience {
    /// From now on.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), delays: Box::new(retry::delays()) }
    }

    /// Whether it is worth asking again after this error.
    #[must_use]
    pub(crate) fn allows(&self, error: &kube::Error) -> bool {
        passes(error) && self.began.elapsed() < AWAY
    }

    /// Until the next attempt, longer each time.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.delays.next().unwrap_or(AWAY)).await;
    }
}

/// The answer to one request, or that there was none in time.
///
/// # Errors
/// What the server says; a fault of the connection if it says nothing.
pub(crate) async fn answered<T>(attempt: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    within(ANSWER, attempt).await
}

async fn within<T>(limit: Duration, attempt: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let silent = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(kube::Error::Service(silent().into())))
}

/// Calls `attempt` until the API server answers, waiting longer each time.
///
/// # Errors
/// What the server says; the last fault when it is away for more than 90 s.
pub(crate) async fn again<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut patience = Patience::new();
    loop {
        match answered(attempt()).await {
            Err(error) if patience.allows(&error) => patience.wait().await,
            answer => return answer,
        }
    }
}

/// As [`again`], while doing `what`.
///
/// # Errors
/// As [`again`], with its cause.
pub(crate) async fn patiently<T, F>(what: impl Fn() -> String, attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    again(attempt).await.map_err(|error| fail(what(), &error))
}

/// Whether an error may pass by waiting.
fn passes(error: &kube::Error) -> bool {
    match error {
        // A webhook that does not answer will not answer the next time; it has to be removed.
        kube::Error::Api(status) if status.message.contains("conversion webhook") => false,
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 500..=504) && cause_of(error) != Cause::Webhook,
        error => matches!(cause_of(error), Cause::ClusterUnreachable | Cause::Apiserver),
    }
}

/// The code of an answer of the API server, if it is one.
#[must_use]
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "x").with_code(code)))
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        assert!(passes(&api(429, "")) && passes(&api(500, "etcdserver: leader changed")) && passes(&api(503, "")));
        assert!(!passes(&api(403, "")) && !passes(&api(404, "")) && !passes(&api(409, "")));
        assert!(!passes(&api(500, "Internal error occurred: failed calling webhook \"x\"")));
        assert!(!passes(&api(500, "conversion webhook for x failed")));
        assert!(passes(&kube::Error::Service(std::io::Error::other("Connection refused").into())));
    }

    #[tokio::test]
    async fn a_connection_that_swallows_everything_is_given_up_and_tried_again() {
        let never = std::future::pending::<Result<(), kube::Error>>();
        let silent = within(Duration::from_millis(10), never).await.unwrap_err();
        assert!(passes(&silent), "{silent}");
        assert_eq!(answered(async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_server_may_restart() {
        let left = Cell::new(3);
        let answer = patiently(
            || "ask".into(),
            || {
                left.set(left.get() - 1);
                let answer = if left.get() == 0 { Ok(7) } else { Err(api(503, "starting")) };
                async move { answer }
            },
        );
        assert_eq!(answer.await.unwrap(), 7);
        let refused =
            patiently::<(), _>(|| "ask".into(), || async { Err(api(403, "forbidden: no")) }).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Auth);
    }
}
