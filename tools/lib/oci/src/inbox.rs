//! A registry on this machine's loopback interface, for programs that can push only to registries: what
//! arrives is kept in a layout, where it can be looked at before anybody else sees it.
//!
//! It speaks as much of the OCI distribution specification as a push needs. Whoever is not told its name
//! gets nothing from it and nothing into it, for a part of the name is a secret.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kit::{Cause, Context, Result};
use oci_spec::image::{Descriptor, MediaType, Sha256Digest};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Mutex as AsyncMutex,
    task::JoinHandle,
};

use crate::{Document, Layout, document::MANIFEST_LIMIT, is_image, is_index};

/// A registry that takes what is pushed to it while it lives.
pub struct Inbox {
    name: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// A manifest or an index that was pushed with a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The repository, without the inbox's name.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it names.
    pub image: Descriptor,
}

struct Shared {
    /// What the path of every repository begins with.
    secret: String,
    layout: Layout,
    uploads: PathBuf,
    next: AtomicU64,
    open: Mutex<HashMap<String, Arc<AsyncMutex<Upload>>>>,
    /// Descriptors by repository and tag.
    tags: Mutex<BTreeMap<(String, String), Descriptor>>,
    /// Media types by digest.
    manifests: Mutex<HashMap<String, String>>,
}

/// A blob that is being sent.
struct Upload {
    file: tokio::fs::File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

type Answer = Response<Full<Bytes>>;
/// An answer that is an error: its status, and what the pushing program shows.
type Refusal = (StatusCode, String);

impl Inbox {
    /// Opens one that keeps what it gets in `folder`, which must be new.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the folder cannot be written, [`Cause::Internal`] if no port is to be had.
    pub async fn open(folder: PathBuf) -> Result<Self> {
        let uploads = folder.join("uploads");
        let layout = Layout::create(folder)?;
        for folder in [&uploads, &layout.folder().join("blobs/sha256")] {
            fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        }
        let listening = TcpListener::bind("127.0.0.1:0").await;
        let listener = listening.cause(Cause::Internal, || "cannot listen on 127.0.0.1")?;
        let address = listener.local_addr().cause(Cause::Internal, || "cannot listen on 127.0.0.1")?;
        let secret = secret()?;
        let name = format!("{address}/{secret}");
        let shared = Arc::new(Shared {
            secret,
            layout,
            uploads,
            next: AtomicU64::new(0),
            open: Mutex::default(),
            tags: Mutex::default(),
            manifests: Mutex::default(),
        });
        let server = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { name, shared, server })
    }

    /// What repositories pushed to it begin with, without a slash at the end.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Everything that was pushed with a tag, by repository and tag.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        let tags = lock(&self.shared.tags);
        let received = |((repository, tag), image): (&(String, String), &Descriptor)| Received {
            repository: repository.clone(),
            tag: tag.clone(),
            image: image.clone(),
        };
        tags.iter().map(received).collect()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sixteen hexadecimal digits that nobody can guess.
fn secret() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.cause(Cause::Internal, || "cannot read /dev/urandom")?;
    Ok(kit::digest::to_hex(&bytes))
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the inbox, also those in use.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&shared)));
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await.unwrap_or_else(refusal)) }
    });
    // A client that breaks off starts again.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        if path.trim_end_matches('/') == "/v2" {
            return Ok(empty(StatusCode::OK));
        }
        let missing = || (StatusCode::NOT_FOUND, "NAME_UNKNOWN: no such repository".to_owned());
        let rest = path.strip_prefix("/v2/").and_then(|rest| rest.strip_prefix(&self.secret)).ok_or_else(missing)?;
        let rest = rest.strip_prefix('/').ok_or_else(missing)?;
        // A repository's name may hold either word.
        let is_manifest = rest.rfind("/manifests/") > rest.rfind("/blobs/");
        if let Some((repository, name)) = rest.rsplit_once("/manifests/").filter(|_| is_manifest) {
            return match *request.method() {
                Method::GET | Method::HEAD => self.manifest(repository, name).await,
                Method::PUT => self.put_manifest(repository, name, request).await,
                _ => Err(not_allowed()),
            };
        }
        let (repository, name) = rest.rsplit_once("/blobs/").ok_or_else(missing)?;
        match (name.strip_prefix("uploads"), request.method().clone()) {
            (None, Method::HEAD) => self.blob(name),
            (Some(_), Method::POST) => self.begin(repository).await,
            (Some(id), Method::PATCH) => self.append(repository, id.trim_matches('/'), request).await,
            (Some(id), Method::PUT) => self.commit(repository, id.trim_matches('/'), request).await,
            _ => Err(not_allowed()),
        }
    }

    fn blob(&self, digest: &str) -> Result<Answer, Refusal> {
        let there = fs::metadata(self.path(digest)?);
        let there = there.map_err(|_| (StatusCode::NOT_FOUND, "BLOB_UNKNOWN: no such blob".to_owned()))?;
        let answer = Response::builder().header(header::CONTENT_LENGTH, there.len());
        answer.header("Docker-Content-Digest", digest).body(Full::default()).map_err(broken)
    }

    async fn manifest(&self, repository: &str, name: &str) -> Result<Answer, Refusal> {
        let tagged = lock(&self.tags).get(&(repository.to_owned(), name.to_owned())).cloned();
        let digest = tagged.map_or_else(|| name.to_owned(), |image| image.digest().to_string());
        let media_type = lock(&self.manifests).get(&digest).cloned();
        let media_type =
            media_type.ok_or_else(|| (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN: no such manifest".to_owned()))?;
        let bytes = tokio::fs::read(self.path(&digest)?).await.map_err(broken)?;
        let answer = Response::builder().header(header::CONTENT_TYPE, media_type);
        answer.header("Docker-Content-Digest", digest).body(Full::from(bytes)).map_err(broken)
    }

    async fn put_manifest(&self, repository: &str, name: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let served = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let served = served.unwrap_or_default().to_owned();
        let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
        let body = Limited::new(request.into_body(), limit).collect().await;
        let bytes = body.map_err(|error| (StatusCode::BAD_REQUEST, format!("MANIFEST_INVALID: {error}")))?.to_bytes();
        let document = Document::new(bytes.to_vec(), &served);
        let is_digest = name.contains(':');
        if !(is_index(&document.media_type) || is_image(&document.media_type)) || (is_digest && name != document.digest)
        {
            return Err((StatusCode::BAD_REQUEST, "MANIFEST_INVALID: not what its name says".into()));
        }
        let media_type = MediaType::from(document.media_type.as_str());
        let image = self.layout.write(media_type, &document.bytes).map_err(broken)?;
        lock(&self.manifests).insert(document.digest.clone(), document.media_type);
        if !is_digest {
            lock(&self.tags).insert((repository.to_owned(), name.to_owned()), image);
        }
        self.created(&format!("{repository}/manifests/{name}"), &document.digest)
    }

    async fn begin(&self, repository: &str) -> Result<Answer, Refusal> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.uploads.join(&id);
        let file = tokio::fs::File::create(&path).await.map_err(broken)?;
        let upload = Upload { file, path, hasher: Sha256::new(), size: 0 };
        lock(&self.open).insert(id.clone(), Arc::new(AsyncMutex::new(upload)));
        self.accepted(repository, &id, 0)
    }

    async fn append(&self, repository: &str, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let upload = self.upload(id)?;
        let mut upload = upload.lock().await;
        // It may have been closed while this waited.
        self.upload(id)?;
        upload.take(request.into_body()).await?;
        self.accepted(repository, id, upload.size)
    }

    async fn commit(&self, repository: &str, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let said = request.uri().query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("digest="));
        let said = said.unwrap_or_default().replace("%3A", ":").replace("%3a", ":");
        let upload = self.upload(id)?;
        let mut upload = upload.lock().await;
        upload.take(request.into_body()).await?;
        lock(&self.open).remove(id);
        let found = format!("sha256:{}", kit::digest::to_hex(&upload.hasher.clone().finalize()));
        if found != said {
            let _ = tokio::fs::remove_file(&upload.path).await;
            return Err((StatusCode::BAD_REQUEST, format!("DIGEST_INVALID: what was sent has the digest {found}")));
        }
        upload.file.flush().await.map_err(broken)?;
        tokio::fs::rename(&upload.path, self.path(&found)?).await.map_err(broken)?;
        self.created(&format!("{repository}/blobs/{found}"), &found)
    }

    fn upload(&self, id: &str) -> Result<Arc<AsyncMutex<Upload>>, Refusal> {
        let unknown = || (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN: no such upload".to_owned());
        lock(&self.open).get(id).cloned().ok_or_else(unknown)
    }

    fn accepted(&self, repository: &str, id: &str, size: u64) -> Result<Answer, Refusal> {
        let answer = Response::builder().status(StatusCode::ACCEPTED);
        let answer = answer
            .header(header::LOCATION, format!("/v2/{}/{repository}/blobs/uploads/{id}", self.secret))
            .header(header::RANGE, format!("0-{}", size.saturating_sub(1)));
        answer.body(Full::default()).map_err(broken)
    }

    fn created(&self, path: &str, digest: &str) -> Result<Answer, Refusal> {
        let answer = Response::builder().status(StatusCode::CREATED);
        let answer = answer.header(header::LOCATION, format!("/v2/{}/{path}", self.secret));
        answer.header("Docker-Content-Digest", digest).body(Full::default()).map_err(broken)
    }

    /// Where a blob lies, if the digest is one.
    fn path(&self, digest: &str) -> Result<PathBuf, Refusal> {
        let digits = digest.strip_prefix("sha256:").and_then(|digits| digits.parse::<Sha256Digest>().ok());
        let digits = digits.ok_or_else(|| (StatusCode::BAD_REQUEST, "DIGEST_INVALID: no SHA-256 digest".to_owned()))?;
        Ok(self.layout.path(&Descriptor::new(MediaType::EmptyJSON, 0, digits)))
    }
}

impl Upload {
    async fn take(&mut self, mut body: Incoming) -> Result<(), Refusal> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            if let Ok(chunk) = frame.into_data() {
                self.hasher.update(&chunk);
                self.size += chunk.len() as u64;
                self.file.write_all(&chunk).await.map_err(broken)?;
            }
        }
        Ok(())
    }
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn refusal((status, what): Refusal) -> Answer {
    let (code, message) = what.split_once(": ").unwrap_or(("UNKNOWN", what.as_str()));
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    let mut answer = empty(status);
    *answer.body_mut() = Full::from(body.to_string());
    answer
}

fn not_allowed() -> Refusal {
    (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED: this registry only takes what is pushed".into())
}

/// Something of this machine that does not work; the pushing program shows the words.
fn broken(error: impl std::fmt::Display) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("UNKNOWN: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, copy, parse};

    async fn pushed(folder: &std::path::Path, target: &str) -> Result<(Inbox, Descriptor, Descriptor)> {
        let made = Layout::create(folder.join("made"))?;
        let layer = made.write(MediaType::ImageLayerGzip, &vec![7; 300_000])?;
        let config = made.write(MediaType::ImageConfig, b"{}")?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer],
        });
        let image = made.write(MediaType::ImageManifest, &crate::canonical(&manifest)?)?;
        made.finish(std::slice::from_ref(&image))?;
        let inbox = Inbox::open(folder.join("inbox")).await?;
        let target = parse(&target.replace("INBOX", inbox.name()))?;
        copy(&Client::new()?, &made, &image, &target).await?;
        Ok((inbox, image, layer))
    }

    #[test]
    fn what_is_pushed_lies_in_the_layout() {
        let folder = tempfile::tempdir().unwrap();
        let (inbox, image, layer) = crate::run(pushed(folder.path(), "INBOX/a/b:v1")).unwrap();
        let received = Received { repository: "a/b".into(), tag: "v1".into(), image: image.clone() };
        assert_eq!(inbox.received(), [received]);
        for blob in [&image, &layer] {
            assert_eq!(kit::digest::sha256_file(&inbox.layout().path(blob)).unwrap(), blob.digest().to_string());
        }
        assert_eq!(fs::read_dir(folder.path().join("inbox/uploads")).unwrap().count(), 0);
        // It can be asked for again, by tag and by digest.
        let again = parse(&format!("{}/a/b:v1", inbox.name())).unwrap();
        let found = crate::run(async { Client::new()?.manifest(&again).await }).unwrap();
        assert_eq!(found.digest, image.digest().to_string());
        let name = inbox.name().to_owned();
        drop(inbox);
        // Its task ends as soon as the runtime comes to it.
        let late = || kit::Error::new(Cause::Internal, "it still listens");
        let closed =
            || Ok(std::net::TcpStream::connect(name.split('/').next().unwrap_or_default()).is_err().then_some(()));
        kit::retry::until(std::time::Duration::from_secs(10), late, closed).unwrap();
    }

    #[test]
    fn who_does_not_know_its_name_gets_nothing_in() {
        let folder = tempfile::tempdir().unwrap();
        let push = crate::run(async {
            let inbox = Inbox::open(folder.path().join("other")).await?;
            let host = inbox.name().split('/').next().unwrap_or_default().to_owned();
            pushed(folder.path(), &format!("{host}/a/b:v1")).await.map(drop)
        });
        assert_eq!(push.unwrap_err().cause, Cause::Registry);
        assert_eq!(fs::read_dir(folder.path().join("other/blobs/sha256")).unwrap().count(), 0);
    }
}
