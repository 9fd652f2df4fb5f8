//! Running asynchronous work from a tool: one runtime, ended by a signal, no wait without an end.

use std::{future::Future, time::Duration};

use kit::{Cause, Context, Error, Result, signal};

/// Runs `work` on a runtime of its own, which keeps renewing a lease while `work` blocks a thread.
/// A signal ends it at its next await.
///
/// # Errors
/// What `work` returns, or [`Cause::Interrupted`].
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .cause(Cause::Internal, || "cannot start the runtime")?;
    let result = runtime.block_on(interruptible(work));
    // A thread that hangs in somebody's plugin must not keep us.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// `work`, ended by the next signal.
///
/// # Errors
/// What `work` returns, or [`Cause::Interrupted`].
pub async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let subscription = signal::subscribe(move |number| send.send(number).is_ok());
    signal::check()?;
    let result = tokio::select! {
        result = work => result,
        Some(number) = receive.recv() => Err(Error::interrupted(number)),
    };
    drop(subscription);
    result
}

/// `work`, which must end within `limit`.
///
/// # Errors
/// What `work` returns, or `late` when the time is over.
pub async fn within<T>(
    limit: Duration,
    late: impl FnOnce() -> Error,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
