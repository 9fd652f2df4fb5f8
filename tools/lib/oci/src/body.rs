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
use tokio::{io::AsyncReadExt, sync::mpsc};

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// What a blob is read from.
pub(crate) struct Body {
    what: String,
    digest: String,
    size: u64,
    chunks: Chunks,
}

impl Body {
    pub(crate) fn new(
        what: impl Into<String>,
        descriptor: &Descriptor,
        chunks: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        let digest = descriptor.digest().to_string();
        Self { what: what.into(), digest, size: descriptor.size(), chunks: Box::pin(chunks) }
    }

    /// All of it, which must be at most `limit` bytes.
    pub(crate) async fn bytes(mut self, limit: u64) -> Result<Vec<u8>> {
        if self.size > limit {
            return Err(self.wrong(format!("is said to have {} bytes, more than the {limit} allowed", self.size)));
        }
        let mut check = Check::default();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk?;
            check.update(&self, &chunk)?;
            bytes.extend_from_slice(&chunk);
        }
        check.finish(&self)?;
        Ok(bytes)
    }

    /// Lets blocking `work` read it on another thread. When the work ends early the rest is not fetched,
    /// and only then is the digest not checked.
    pub(crate) async fn scan<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel(4);
        let worker = tokio::task::spawn_blocking(move || work(&mut ChannelReader { receiver, rest: Bytes::new() }));
        let fetched = self.feed(sender).await;
        let worked = worker.await.cause(Cause::Internal, || format!("reading {} stopped", self.what))?;
        // A broken transfer explains whatever the work made of its pieces.
        fetched.and(worked)
    }

    async fn feed(&mut self, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<()> {
        let mut check = Check::default();
        let fed = async {
            while let Some(chunk) = self.chunks.next().await {
                let chunk = chunk?;
                check.update(self, &chunk)?;
                if sender.send(Ok(chunk)).await.is_err() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match fed.await {
            Ok(true) => check.finish(self),
            Ok(false) => Ok(()),
            Err(error) => {
                // The reader must not take what it has for the whole.
                let _ = sender.send(Err(io::Error::other("the transfer broke off"))).await;
                Err(error)
            }
        }
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

impl Check {
    fn update(&mut self, body: &Body, chunk: &[u8]) -> Result<()> {
        self.seen += chunk.len() as u64;
        if self.seen > body.size {
            return Err(body.wrong(format!("has more than its {} bytes", body.size)));
        }
        self.hasher.update(chunk);
        Ok(())
    }

    fn finish(self, body: &Body) -> Result<()> {
        if self.seen != body.size {
            return Err(body.wrong(format!("has {} bytes instead of {}", self.seen, body.size)));
        }
        let found = format!("sha256:{}", kit::digest::to_hex(&self.hasher.finalize()));
        if found != body.digest {
            return Err(body.wrong(format!("has the digest {found}")));
        }
        Ok(())
    }
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

struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
