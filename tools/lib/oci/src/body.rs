//! A blob on its way: a stream of bytes whose digest and size are checked while it is read.

use std::{
    io::{self, Read},
    path::Path,
    pin::Pin,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use kit::{Cause, Context, Error, Result};
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, mpsc},
};

/// A larger blob is taken as an attack: what it unpacks to would not be read to its end either.
const SIZE_LIMIT: u64 = 4 << 30;
/// Blobs that are unpacked at the same time: what bounds the memory for it (zstd may want 128 MiB for each).
static READERS: Semaphore = Semaphore::const_new(4);

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// What a blob is read from.
pub(crate) struct Body {
    what: String,
    digest: String,
    size: u64,
    chunks: Chunks,
    check: Check,
}

impl Body {
    pub(crate) fn new(
        what: impl Into<String>,
        descriptor: &Descriptor,
        chunks: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        let digest = descriptor.digest().to_string();
        let (what, chunks) = (what.into(), Box::pin(chunks));
        Self { what, digest, size: descriptor.size(), chunks, check: Check::default() }
    }

    /// All of it, which must be at most `limit` bytes.
    pub(crate) async fn bytes(mut self, limit: u64) -> Result<Vec<u8>> {
        if self.size > limit {
            return Err(self.wrong(format!("is said to have {} bytes, more than the {limit} allowed", self.size)));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Lets blocking `work` read it on another thread, which is given no more than it asks for. The digest is
    /// compared when the work reads to the end, and only then.
    pub(crate) async fn scan<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.size > SIZE_LIMIT {
            return Err(self.wrong(format!("is said to have {} bytes, more than the {SIZE_LIMIT} allowed", self.size)));
        }
        // Before a place among the readers is taken: waiting for a registry takes no memory.
        let Some(rest) = self.next().await? else { return work(&mut io::empty()) };
        let _place = READERS.acquire().await.cause(Cause::Internal, || "nobody closes it")?;
        let (ask, asked) = mpsc::channel(1);
        let (give, given) = mpsc::channel(1);
        let worker = tokio::task::spawn_blocking(move || work(&mut AskingReader { ask, given, rest }));
        let fetched = self.answer(asked, give).await;
        let worked = worker.await.cause(Cause::Internal, || format!("reading {} stopped", self.what))?;
        // A broken transfer explains whatever the work made of its pieces.
        fetched.and(worked)
    }

    /// Gives a piece for each time that the reader asks for one, until it has no more to ask.
    async fn answer(&mut self, mut asked: mpsc::Receiver<()>, give: mpsc::Sender<io::Result<Bytes>>) -> Result<()> {
        while asked.recv().await.is_some() {
            let (piece, result) = match self.next().await {
                Ok(Some(chunk)) => (Ok(chunk), None),
                // The reader takes an empty piece for the end.
                Ok(None) => (Ok(Bytes::new()), Some(Ok(()))),
                // It must not take what it has for the whole.
                Err(error) => (Err(io::Error::other("the transfer broke off")), Some(Err(error))),
            };
            // If it has gone away meanwhile, the next question does not come.
            let _ = give.send(piece).await;
            if let Some(result) = result {
                return result;
            }
        }
        Ok(())
    }

    /// The next bytes, never none of them; at the end size and digest are right, or it is an error.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk?;
            self.check.seen += chunk.len() as u64;
            if self.check.seen > self.size {
                return Err(self.wrong(format!("has more than its {} bytes", self.size)));
            }
            self.check.hasher.update(&chunk);
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if self.check.seen != self.size {
            return Err(self.wrong(format!("has {} bytes instead of {}", self.check.seen, self.size)));
        }
        let found = format!("sha256:{}", kit::digest::to_hex(&std::mem::take(&mut self.check.hasher).finalize()));
        if found != self.digest {
            return Err(self.wrong(format!("has the digest {found}")));
        }
        Ok(None)
    }

    fn wrong(&self, how: impl std::fmt::Display) -> Error {
        Error::new(Cause::Registry, format!("{} {how}", self.what))
    }
}

#[derive(Default)]
struct Check {
    hasher: Sha256,
    seen: u64,
}

/// A file's bytes in chunks.
pub(crate) async fn file_chunks(path: &Path) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
    let shown = path.display().to_string();
    let file = tokio::fs::File::open(path).await.cause(Cause::Usage, || format!("cannot read {shown}"))?;
    Ok(stream::try_unfold((file, shown), |(mut file, shown)| async move {
        let mut buffer = vec![0; 256 << 10];
        let read = file.read(&mut buffer).await.cause(Cause::HostDisk, || format!("cannot read {shown}"))?;
        buffer.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(buffer), (file, shown))))
    }))
}

/// Asks for the next piece when it has none left.
struct AskingReader {
    ask: mpsc::Sender<()>,
    given: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for AskingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            // Whoever gave the last piece has gone, so that there is no answer any more.
            let _ = self.ask.blocking_send(());
            self.rest = self.given.blocking_recv().transpose()?.unwrap_or_default();
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
