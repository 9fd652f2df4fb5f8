//! The bytes of a registry's blob: asked for in pieces where a little may be enough, and where a transfer breaks off
//! gone on with from there.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use kit::{Cause, Error, Result};
use reqwest::{Response, StatusCode, header};

use crate::{Client, Reference, client::ATTEMPTS};

/// How much of a blob is probably wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// All of it.
    All,
    /// Its beginning.
    Beginning,
}

/// What is asked for first, where a beginning may be enough: ko's layers have one program behind a few names.
const FIRST: u64 = 32 << 10;
/// What is asked for then.
const SECOND: u64 = 1 << 20;

type Chunks = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// A transfer as far as it has come.
struct Transfer {
    client: Client,
    repository: Reference,
    digest: String,
    /// By the blob's descriptor; the registry may have something else.
    size: u64,
    want: Want,
    /// Bytes that were given on.
    at: u64,
    /// The answer that is being read, and where it ends; nothing if the registry decides that.
    open: Option<(Chunks, Option<u64>)>,
    /// Bytes of the answer that came already, from a registry that cannot begin in the middle.
    skip: u64,
    broken: usize,
    ranges: bool,
}

/// Chunks of a blob, each fetched when it is asked for. What they are is not checked here.
pub(crate) fn chunks(
    client: &Client,
    repository: &Reference,
    digest: &str,
    size: u64,
    want: Want,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let transfer = Transfer {
        client: client.clone(),
        repository: repository.clone(),
        digest: digest.to_owned(),
        size,
        want,
        at: 0,
        open: None,
        skip: 0,
        broken: 0,
        ranges: true,
    };
    stream::try_unfold(
        transfer,
        |mut transfer| async move { Ok(transfer.next().await?.map(|chunk| (chunk, transfer))) },
    )
}

impl Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some((chunks, end)) = &mut self.open else {
                if self.at > 0 && self.at >= self.size {
                    return Ok(None);
                }
                self.open().await?;
                continue;
            };
            let end = *end;
            match chunks.next().await {
                Some(Ok(mut chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
                    self.at += chunk.len() as u64;
                    if !chunk.is_empty() {
                        return Ok(Some(chunk));
                    }
                }
                // The end that the registry decides.
                None if end.is_none() => return Ok(None),
                None if end.is_some_and(|end| self.at >= end) => self.open = None,
                None => self.broke_off(None).await?,
                Some(Err(error)) => self.broke_off(Some(error)).await?,
            }
        }
    }

    /// Asks for what is missing, or for the next piece of it.
    async fn open(&mut self) -> Result<()> {
        let end = match self.want {
            Want::Beginning if self.at < FIRST => FIRST.min(self.size),
            Want::Beginning if self.at < SECOND => SECOND.min(self.size),
            _ => self.size,
        };
        // The whole is asked for without a range: not every registry has them.
        let range = (self.ranges && end > self.at && (self.at > 0 || end < self.size)).then_some((self.at, end - 1));
        let response = self.client.get_blob(&self.repository, &self.digest, range).await?;
        match (response.status(), range) {
            (StatusCode::PARTIAL_CONTENT, Some((begin, _))) => {
                self.compare(&response, begin)?;
                self.open = Some((Box::pin(response.bytes_stream()), Some(end)));
            }
            // The size may be wrong, or ranges not be known: then the whole tells.
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => self.ranges = false,
            _ => {
                self.skip = self.at;
                self.open = Some((Box::pin(response.bytes_stream()), None));
            }
        }
        Ok(())
    }

    /// `Content-Range: bytes BEGIN-END/TOTAL` has to be what was asked for, of a blob of the right size.
    fn compare(&self, response: &Response, begin: u64) -> Result<()> {
        let said = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let (first, total) = said.and_then(content_range).unwrap_or((begin, None));
        let wrong = |how: String| Err(Error::new(Cause::Registry, format!("{self} {how}")));
        if first != begin {
            return wrong(format!("came from byte {first} on, asked for from {begin}"));
        }
        match total {
            Some(total) if total != self.size => wrong(format!("has {total} bytes instead of {}", self.size)),
            _ => Ok(()),
        }
    }

    /// Waits and lets the rest be asked for again, a few times.
    async fn broke_off(&mut self, error: Option<reqwest::Error>) -> Result<()> {
        self.open = None;
        self.broken += 1;
        if let Some(delay) = kit::retry::delays().nth(self.broken).filter(|_| self.broken < ATTEMPTS) {
            tokio::time::sleep(delay).await;
            return Ok(());
        }
        let what = format!("{self} broke off {ATTEMPTS} times, last at {} of {} bytes", self.at, self.size);
        Err(match error {
            Some(error) => Error::from_source(Cause::Registry, what, error),
            None => Error::new(Cause::Registry, what),
        })
    }
}

impl std::fmt::Display for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&blob_name(&self.repository, &self.digest))
    }
}

/// What a blob is called in messages.
pub(crate) fn blob_name(repository: &Reference, digest: &str) -> String {
    format!("blob {digest} of {}/{}", repository.registry(), repository.repository())
}

/// First byte and, if it is said, size of the whole.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/20"), Some((5, Some(20))));
        assert_eq!(content_range("bytes 0-9/*"), Some((0, None)));
        for nonsense in ["", "bytes", "bytes */20", "lines 1-2/3", "bytes x-2/3"] {
            assert_eq!(content_range(nonsense), None, "{nonsense}");
        }
    }
}
