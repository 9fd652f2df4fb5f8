//! Writing to registries (distribution-spec, "Push"): blobs, manifests, and taking a tag away.
//!
//! Small blobs go in one request. Larger ones go in an upload of one `PATCH`, as docker and ko send them; when it
//! breaks, the registry is asked how much it has, and the rest follows, or all of it again.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use kit::{Cause, Context, Error, Result, Within};
use oci_spec::image::Descriptor;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{self, HeaderMap},
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{ATTEMPTS, Access, Client, LONGEST_WAIT, good, later, manifest_url, name, retry_after, url};
use crate::{Document, Reference};

/// Transfers of one client at the same time, whatever they belong to.
const TRANSFERS: usize = 6;
/// Blobs up to this size go in one request.
const WHOLE: u64 = 1 << 20;

/// A blob that comes through more slowly than this many bytes a second has broken off.
const SLOWEST: u64 = 64 << 10;
/// The least time that a request of an upload has.
const SEND_LIMIT: Duration = Duration::from_secs(120);

/// A blob's bytes, from wherever they come.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// How a repository came to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    There,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

/// What uploads of one client share.
pub(super) struct Uploads {
    transfers: Semaphore,
    /// Which repository of a registry has a blob, by registry and digest. Who is the first to send a blob to a
    /// registry holds the lock meanwhile, so that the others can have it mounted.
    homes: Mutex<HashMap<(String, String), Home>>,
    /// Held while a list of referrers is changed.
    lists: tokio::sync::Mutex<()>,
}

type Home = Arc<tokio::sync::Mutex<Option<String>>>;

impl Default for Uploads {
    fn default() -> Self {
        Self { transfers: Semaphore::new(TRANSFERS), homes: Mutex::default(), lists: tokio::sync::Mutex::default() }
    }
}

impl Uploads {
    fn home(&self, repository: &Reference, digest: &str) -> Home {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(homes.entry((repository.resolve_registry().to_owned(), digest.to_owned())).or_default())
    }
}

/// An upload that a registry opened, and how much of the blob it has.
struct Session {
    url: Url,
    offset: u64,
}

enum Begun {
    Mounted,
    At(Url),
}

/// An attempt that came to nothing.
struct Failure {
    error: Error,
    again: bool,
    /// What the registry has of the upload is not what it should be.
    spoilt: bool,
    /// As the registry asks.
    after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false, spoilt: false, after: None }
    }
}

impl Client {
    /// The size of a repository's blob, nothing if it does not have it.
    ///
    /// # Errors
    /// [`Cause::Auth`] or [`Cause::Registry`], naming the repository.
    pub async fn blob_size(&self, repository: &Reference, digest: &str) -> Result<Option<u64>> {
        let url = url(repository, &format!("blobs/{digest}"));
        let response = self.send(Access::Write, repository, || self.0.http.head(&url)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => {
                let response = good(response, repository).await?;
                let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                Ok(Some(length.and_then(|length| length.parse().ok()).unwrap_or_default()))
            }
        }
    }

    /// As [`Client::find_manifest`], for somebody who is going to write there.
    pub(crate) async fn find_written(&self, reference: &Reference) -> Result<Option<Document>> {
        self.find_manifest_for(Access::Write, reference).await
    }

    /// Sees to it that a repository has a blob. `chunks` is asked for its bytes from an offset on, and again when
    /// the upload broke.
    pub(crate) async fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        chunks: impl AsyncFn(u64) -> Result<Chunks>,
    ) -> Result<Sent> {
        let digest = blob.digest().to_string();
        let home = self.0.uploads.home(repository, &digest);
        if self.has_blob(repository, &digest).await? {
            self.know(repository, &digest);
            return Ok(Sent::There);
        }
        let mut first = Some(home.lock_owned().await);
        let elsewhere = first.as_ref().and_then(|known| (**known).clone());
        match elsewhere.as_deref() {
            Some(other) if other == repository.repository() => return Ok(Sent::There),
            Some(_) => first = None,
            None => {}
        }
        let sent = {
            let _transfer = self.0.uploads.transfers.acquire().await;
            self.upload(repository, blob, elsewhere.as_deref(), chunks).await
        };
        let sent = sent.within(|| format!("cannot push blob {digest} to {}", name(repository)))?;
        if let Some(mut known) = first {
            *known = Some(repository.repository().to_owned());
        }
        Ok(sent)
    }

    /// Notes that a repository has a blob, so that others of its registry can have it mounted.
    pub(crate) fn know(&self, repository: &Reference, digest: &str) {
        if let Ok(mut known) = self.0.uploads.home(repository, digest).try_lock() {
            known.get_or_insert_with(|| repository.repository().to_owned());
        }
    }

    /// For whoever changes a list of referrers, which means reading and writing it.
    pub(crate) async fn lists(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.uploads.lists.lock().await
    }

    async fn has_blob(&self, repository: &Reference, digest: &str) -> Result<bool> {
        let _transfer = self.0.uploads.transfers.acquire().await;
        self.blob_size(repository, digest).await.map(|size| size.is_some())
    }

    async fn upload(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        elsewhere: Option<&str>,
        chunks: impl AsyncFn(u64) -> Result<Chunks>,
    ) -> Result<Sent> {
        let digest = blob.digest().to_string();
        let mut delays = kit::retry::delays().take(ATTEMPTS - 1);
        let mut session = None;
        loop {
            if session.is_none() {
                session = match self.begin(repository, &digest, elsewhere).await? {
                    Begun::Mounted => return Ok(Sent::Mounted),
                    Begun::At(url) => Some(Session { url, offset: 0 }),
                };
            }
            let Some(open) = &mut session else { continue };
            let resumed = open.offset > 0;
            let Err(failure) = self.attempt(repository, blob, open, &chunks).await else { return Ok(Sent::Uploaded) };
            match delays.next() {
                Some(delay) if failure.again || (failure.spoilt && resumed) => {
                    tokio::time::sleep(failure.after.unwrap_or(delay)).await
                }
                _ => return Err(failure.error),
            }
            // The answer may be what got lost.
            if self.blob_size(repository, &digest).await?.is_some() {
                return Ok(Sent::Uploaded);
            }
            session = match session.take() {
                Some(broken) if blob.size() > WHOLE && !failure.spoilt => {
                    self.resume(repository, broken, blob.size()).await
                }
                _ => None,
            };
        }
    }

    /// Opens an upload, or has the blob mounted from another repository of the registry.
    async fn begin(&self, repository: &Reference, digest: &str, elsewhere: Option<&str>) -> Result<Begun> {
        let mounted = match elsewhere {
            // Some registries want rights for it that we have not asked for; it is no more than a short cut.
            Some(from) => self.open(repository, Some((digest, from))).await.ok(),
            None => None,
        };
        let (place, response) = match mounted {
            Some(opened) => opened,
            None => self.open(repository, None).await?,
        };
        if elsewhere.is_some() && response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let at = location(&response, &place);
        at.map(Begun::At).ok_or_else(|| Error::new(Cause::Registry, "the registry does not say where to upload to"))
    }

    /// The question for an upload, with a blob and the repository that has it already; the good answer to it.
    async fn open(&self, repository: &Reference, mount: Option<(&str, &str)>) -> Result<(Url, Response)> {
        let place = url(repository, "blobs/uploads/");
        let mut place = Url::parse(&place).cause(Cause::Internal, || format!("'{place}' is no address"))?;
        if let Some((digest, from)) = mount {
            place.query_pairs_mut().append_pair("mount", digest).append_pair("from", from);
        }
        // Some servers want a length even where there is nothing to send.
        let build = || self.0.http.post(place.clone()).header(header::CONTENT_LENGTH, 0);
        let response = good(self.send(Access::Write, repository, build).await?, repository).await?;
        Ok((place, response))
    }

    /// Sends what is missing of a blob, and closes the upload.
    async fn attempt(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        session: &mut Session,
        chunks: &impl AsyncFn(u64) -> Result<Chunks>,
    ) -> Result<(), Failure> {
        let digest = blob.digest().to_string();
        let whole = session.offset == 0 && blob.size() <= WHOLE;
        if !whole && session.offset < blob.size() {
            let request = self.session_request(Method::PATCH, &session.url, repository);
            let offset = session.offset;
            let request = match offset {
                0 => request,
                _ => request.header(header::CONTENT_RANGE, format!("{offset}-{}", blob.size() - 1)),
            };
            let response = self.send_bytes(request, repository, blob, offset, chunks).await?;
            if let Some(next) = location(&response, &session.url) {
                session.url = next;
            }
            session.offset = blob.size();
        }
        let mut close = session.url.clone();
        close.query_pairs_mut().append_pair("digest", &digest);
        let request = self.session_request(Method::PUT, &close, repository);
        let response = if whole {
            self.send_bytes(request, repository, blob, 0, chunks).await?
        } else {
            let request = request.header(header::CONTENT_LENGTH, 0);
            self.answered(repository, request.send().await).await?
        };
        same_digest(response.headers(), &digest)?;
        Ok(())
    }

    async fn send_bytes(
        &self,
        request: RequestBuilder,
        repository: &Reference,
        blob: &Descriptor,
        offset: u64,
        chunks: &impl AsyncFn(u64) -> Result<Chunks>,
    ) -> Result<Response, Failure> {
        let fault = Fault::default();
        let ours = offset == 0 && blob.digest().to_string().starts_with("sha256:");
        let hasher = ours.then(Sha256::new);
        let left = blob.size() - offset;
        let watch = Watch { chunks: chunks(offset).await?, hasher, left, blob: blob.clone(), fault: fault.clone() };
        let request = request
            .timeout(SEND_LIMIT + Duration::from_secs(left / SLOWEST))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, left)
            .body(reqwest::Body::wrap_stream(watch.stream()));
        let sent = request.send().await;
        // Where the bytes came from explains whatever the registry made of them.
        if let Some((error, again)) = fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Failure { error, again, spoilt: false, after: None });
        }
        self.answered(repository, sent).await
    }

    /// What an answer within an upload means.
    async fn answered(&self, repository: &Reference, sent: reqwest::Result<Response>) -> Result<Response, Failure> {
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let error = Error::from_source(Cause::Registry, "the upload broke off", error);
                return Err(Failure { error, again: true, spoilt: false, after: None });
            }
        };
        let (status, after) = (response.status(), retry_after(&response).map(|wait| wait.min(LONGEST_WAIT)));
        let error = match good(response, repository).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if status == StatusCode::UNAUTHORIZED {
            // The token's time was over; without credentials this is the end.
            self.log_in(repository, Access::Write).await?;
        }
        let gone = [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::RANGE_NOT_SATISFIABLE];
        let spoilt = [StatusCode::BAD_REQUEST, StatusCode::RANGE_NOT_SATISFIABLE].contains(&status);
        Err(Failure { error, again: later(status) || gone.contains(&status), spoilt, after })
    }

    /// Asks how much of an upload has arrived; nothing if it has to begin anew.
    async fn resume(&self, repository: &Reference, session: Session, size: u64) -> Option<Session> {
        let asked = self.session_request(Method::GET, &session.url, repository).send().await.ok()?;
        if !asked.status().is_success() {
            return None;
        }
        let last = asked.headers().get(header::RANGE)?.to_str().ok()?.trim_start_matches("bytes=");
        let last: u64 = last.strip_prefix("0-")?.parse().ok()?;
        // Registries say `0-0` for nothing as well as for the first byte.
        let offset = if last == 0 { return None } else { last + 1 };
        let url = location(&asked, &session.url).unwrap_or(session.url);
        (offset <= size).then_some(Session { url, offset })
    }

    /// A request to where a registry wants an upload. Only the registry itself is shown the token.
    fn session_request(&self, method: Method, to: &Url, repository: &Reference) -> RequestBuilder {
        let request = self.0.sending.request(method, to.clone()).timeout(SEND_LIMIT);
        let home = Url::parse(&url(repository, "")).ok();
        match self.token(repository, Access::Write) {
            Some(token) if home.is_some_and(|home| home.origin() == to.origin()) => {
                request.header(header::AUTHORIZATION, token)
            }
            _ => request,
        }
    }

    /// Stores a manifest or an index under the reference's tag or digest.
    ///
    /// # Errors
    /// [`Cause::Auth`] or [`Cause::Registry`], naming the reference.
    pub async fn push_manifest(&self, reference: &Reference, document: &Document) -> Result<()> {
        self.store_manifest(reference, document).await.map(drop)
    }

    /// As [`Client::push_manifest`]; says whether the registry took notice of the manifest's `subject`.
    pub(crate) async fn store_manifest(&self, reference: &Reference, document: &Document) -> Result<bool> {
        let what = || format!("cannot push {reference}");
        let media_type = header::HeaderValue::from_str(&document.media_type)
            .cause(Cause::Registry, || format!("'{}' is no media type", document.media_type))?;
        let (url, bytes) = (manifest_url(reference), Bytes::copy_from_slice(&document.bytes));
        let build = || self.0.http.put(&url).header(header::CONTENT_TYPE, media_type.clone()).body(bytes.clone());
        let response = self.send(Access::Write, reference, build).await.within(what)?;
        let response = good(response, reference).await.within(what)?;
        same_digest(response.headers(), &document.digest).within(what)?;
        Ok(response.headers().contains_key("oci-subject"))
    }

    /// Takes a tag away; says whether the registry allows that.
    ///
    /// # Errors
    /// [`Cause::Registry`], naming the reference, if it failed for another reason.
    pub async fn delete_tag(&self, reference: &Reference) -> Result<bool> {
        if reference.digest().is_some() || reference.tag().is_none() {
            // Without its tags the manifest would go, and with it every other tag that names it.
            return Err(Error::new(Cause::Internal, format!("{reference} is no tag")));
        }
        let url = manifest_url(reference);
        let response = self.send(Access::Write, reference, || self.0.http.delete(&url)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(true),
            StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(false),
            _ => good(response, reference).await.map(|_| true).within(|| format!("cannot remove {reference}")),
        }
    }

    /// A blob's bytes from an offset on, unchecked.
    pub(crate) async fn blob_from(&self, repository: &Reference, blob: &Descriptor, offset: u64) -> Result<Chunks> {
        let url = url(repository, &format!("blobs/{}", blob.digest()));
        let build = || match offset {
            0 => self.0.http.get(&url),
            _ => self.0.http.get(&url).header(header::RANGE, format!("bytes={offset}-")),
        };
        let response = good(self.send(Access::Read, repository, build).await?, repository).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let what = format!("blob {} of {}", blob.digest(), name(repository));
        let chunks =
            response.bytes_stream().map(move |chunk| chunk.cause(Cause::Registry, || format!("{what} broke off")));
        Ok(if partial { chunks.boxed() } else { skip(chunks.boxed(), offset) })
    }
}

/// All but the first bytes.
pub(crate) fn skip(chunks: Chunks, offset: u64) -> Chunks {
    let rest = chunks.scan(offset, |left, chunk| {
        let chunk = chunk.map(|mut chunk| {
            let cut = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
            *left -= cut as u64;
            chunk.split_off(cut)
        });
        futures::future::ready(Some(chunk))
    });
    rest.boxed()
}

/// Bytes that are in memory, from an offset on.
pub(crate) fn bytes_of(bytes: &Bytes, offset: u64) -> Chunks {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    stream::iter([Ok(bytes.slice(offset..))]).boxed()
}

/// What went wrong with the bytes themselves, and whether another attempt may do better.
type Fault = Arc<Mutex<Option<(Error, bool)>>>;

/// Bytes on their way: the last of them go out only when all have the blob's digest.
struct Watch {
    chunks: Chunks,
    /// Not when only the rest is sent: then the registry alone can tell.
    hasher: Option<Sha256>,
    left: u64,
    blob: Descriptor,
    fault: Fault,
}

impl Watch {
    fn stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(watch))),
                Ok(None) => None,
                Err((error, again)) => {
                    *watch.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((error, again));
                    Some((Err(std::io::Error::other("its bytes are not to be had")), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, (Error, bool)> {
        let wrong = |how: String| (Error::new(Cause::Registry, format!("what was to be sent {how}")), false);
        while self.left > 0 {
            let chunk = match self.chunks.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => {
                    let again = error.cause == Cause::Registry;
                    return Err((error, again));
                }
                None => return Err(wrong(format!("lacks {} bytes of {}", self.left, self.blob.size()))),
            };
            if chunk.is_empty() {
                continue;
            }
            let Some(left) = self.left.checked_sub(chunk.len() as u64) else {
                return Err(wrong(format!("has more than its {} bytes", self.blob.size())));
            };
            self.left = left;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk);
            }
            if let (0, Some(hasher)) = (left, self.hasher.take_if(|_| left == 0)) {
                let found = format!("sha256:{}", kit::digest::to_hex(&hasher.finalize()));
                if found != self.blob.digest().to_string() {
                    return Err(wrong(format!("has the digest {found}")));
                }
            }
            return Ok(Some(chunk));
        }
        Ok(None)
    }
}

fn location(response: &Response, base: &Url) -> Option<Url> {
    base.join(response.headers().get(header::LOCATION)?.to_str().ok()?).ok()
}

fn same_digest(headers: &HeaderMap, wanted: &str) -> Result<()> {
    match headers.get("docker-content-digest").and_then(|value| value.to_str().ok()) {
        Some(stored) if stored != wanted && stored.starts_with("sha256:") => {
            Err(Error::new(Cause::Registry, format!("the registry stored {stored} instead of {wanted}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut watch: Watch) -> Result<Vec<u8>, (Error, bool)> {
        let mut bytes = Vec::new();
        while let Some(chunk) = watch.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn watch(sent: &'static [u8], said: &[u8]) -> Watch {
        let blob = crate::descriptor("x".into(), said).unwrap();
        Watch {
            chunks: bytes_of(&Bytes::from_static(sent), 0),
            hasher: Some(Sha256::new()),
            left: blob.size(),
            blob,
            fault: Fault::default(),
        }
    }

    #[tokio::test]
    async fn only_what_has_the_digest_goes_out_whole() {
        assert_eq!(read(watch(b"abc", b"abc")).await.unwrap(), b"abc");
        assert_eq!(read(watch(b"", b"")).await.unwrap(), b"");
        for (sent, said) in [(b"abd", "has the digest"), (b"abc", "lacks"), (b"abc", "more than")] {
            let whole: &[u8] = match said {
                "lacks" => b"abcd",
                "more than" => b"ab",
                _ => b"abc",
            };
            let (error, again) = read(watch(sent, whole)).await.unwrap_err();
            assert!(error.to_string().contains(said) && !again, "{error}");
        }
    }

    #[tokio::test]
    async fn bytes_are_skipped_across_chunks() {
        let chunks = || stream::iter([b"ab", b"cd", b"ef"].map(|part| Ok(Bytes::from_static(part)))).boxed();
        for offset in 0..8 {
            let rest: Vec<_> = skip(chunks(), offset).map(|chunk| chunk.unwrap()).collect().await;
            assert_eq!(rest.concat(), b"abcdef".get(offset as usize..).unwrap_or_default());
        }
    }
}
