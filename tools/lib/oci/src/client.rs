//! Talking to registries.
//!
//! oci-client does the token handshakes. Manifests and blobs are read and written by requests of our own:
//! oci-client reads a manifest of any size into memory, drops the reason of a refused login, does not show
//! `Retry-After`, and begins a broken upload from the start.

mod pages;
mod write;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use kit::{Cause, Context, Error, Result, Within};
use oci_client::{
    RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use oci_spec::image::Descriptor;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};

pub use write::Sent;
pub(crate) use write::{Chunks, bytes_of, skip};

use crate::{
    Reference,
    auth::DockerConfig,
    body::Body,
    document::{Document, MANIFEST_LIMIT},
    fetch::{self, Want},
    insecure,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(60);
/// A registry that wants us to wait longer is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often something is asked for before it is given up.
pub(crate) const ATTEMPTS: usize = 5;
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A client for all registries. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// For what is sent: an answer comes only after all of it, however long that takes.
    sending: reqwest::Client,
    docker: DockerConfig,
    registries: Mutex<HashMap<String, Registry>>,
    /// Value of `Authorization` by registry and repository.
    tokens: Mutex<HashMap<(String, Access), String>>,
    uploads: write::Uploads,
}

/// What a request does: registries give out tokens for the one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Read,
    Write,
}

#[derive(Clone)]
struct Registry {
    client: oci_client::Client,
    auth: RegistryAuth,
}

impl Client {
    /// A client with the credentials of Docker's configuration.
    ///
    /// # Errors
    /// [`Cause::Auth`] if that configuration cannot be read.
    pub fn new() -> Result<Self> {
        // A second one may come along in the same process; the provider is there then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = || {
            let settings = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT);
            settings.user_agent(concat!("other-arch/", env!("CARGO_PKG_VERSION")))
        };
        let http = settings().read_timeout(READ_LIMIT).build().cause(Cause::Internal, || "cannot set up HTTP")?;
        let sending = settings().build().cause(Cause::Internal, || "cannot set up HTTP")?;
        let docker = DockerConfig::load()?;
        let (registries, tokens, uploads) = Default::default();
        Ok(Self(Arc::new(Inner { http, sending, docker, registries, tokens, uploads })))
    }

    /// The manifest or index of a reference, at most 4 MiB; its digest is checked against the reference's.
    ///
    /// # Errors
    /// [`Cause::Auth`] or [`Cause::Registry`], naming the reference.
    pub async fn manifest(&self, reference: &Reference) -> Result<Document> {
        self.find_manifest(reference)
            .await?
            .ok_or_else(|| Error::new(Cause::Registry, format!("{reference}: the registry has no such image")))
    }

    /// As [`Client::manifest`], nothing if the registry does not have it.
    ///
    /// # Errors
    /// [`Cause::Auth`] or [`Cause::Registry`], naming the reference.
    pub async fn find_manifest(&self, reference: &Reference) -> Result<Option<Document>> {
        self.find_manifest_for(Access::Read, reference).await
    }

    async fn find_manifest_for(&self, access: Access, reference: &Reference) -> Result<Option<Document>> {
        let url = manifest_url(reference);
        let response = self.send(access, reference, || self.reading(Method::GET, &url)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = good(response, reference).await?;
        let served = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let served = served.unwrap_or_default().to_owned();
        let bytes = limited(response, MANIFEST_LIMIT, reference).await?;
        let document = Document::new(bytes, &served);
        match reference.digest() {
            Some(asked) if asked != document.digest => Err(Error::new(
                Cause::Registry,
                format!("{reference}: the registry sent another manifest, {}", document.digest),
            )),
            _ => Ok(Some(document)),
        }
    }

    /// A blob of a repository.
    pub(crate) async fn blob(&self, repository: &Reference, descriptor: &Descriptor) -> Result<Body> {
        Ok(self.lazy_blob(repository, descriptor, Want::All))
    }

    /// A blob of a repository, which is fetched while it is read.
    pub(crate) fn lazy_blob(&self, repository: &Reference, descriptor: &Descriptor, want: Want) -> Body {
        let digest = descriptor.digest().to_string();
        let chunks = fetch::chunks(self, repository, &digest, descriptor.size(), want);
        Body::new(fetch::blob_name(repository, &digest), descriptor, chunks)
    }

    /// A good answer to the question for a blob, or for its bytes from the first to the last of a range; also that
    /// there is no such range.
    pub(crate) async fn get_blob(
        &self,
        repository: &Reference,
        digest: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response> {
        let url = url(repository, &format!("blobs/{digest}"));
        let build = || match range {
            Some((first, last)) => {
                self.reading(Method::GET, &url).header(header::RANGE, format!("bytes={first}-{last}"))
            }
            None => self.reading(Method::GET, &url),
        };
        let response = self.send(Access::Read, repository, build).await?;
        if range.is_some() && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        good(response, repository).await.within(|| fetch::blob_name(repository, digest))
    }

    /// So many bytes of a blob, unchecked; nothing from a registry that only gives all of it.
    pub(crate) async fn blob_part(
        &self,
        repository: &Reference,
        digest: &str,
        first: u64,
        count: u64,
    ) -> Result<Option<Vec<u8>>> {
        let last = first.saturating_add(count).saturating_sub(1);
        let response = self.get_blob(repository, digest, Some((first, last))).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(None);
        }
        let bytes = limited(response, count, repository).await?;
        Ok((bytes.len() as u64 == count).then_some(bytes))
    }

    fn reading(&self, method: Method, url: &str) -> RequestBuilder {
        self.0.http.request(method, url).header(header::ACCEPT, MANIFEST_TYPES)
    }

    /// Sends a request until it is answered by something else than 'later', logging in when asked to.
    async fn send(
        &self,
        access: Access,
        reference: &Reference,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<Response> {
        let what = || format!("{reference}: no answer from registry {}", reference.resolve_registry());
        let mut delays = kit::retry::delays();
        let mut logged_in = false;
        for attempt in 1.. {
            let mut request = build();
            if let Some(token) = self.token(reference, access) {
                request = request.header(header::AUTHORIZATION, token);
            }
            let delay = delays.next().unwrap_or(LONGEST_WAIT);
            match request.send().await {
                // The first time, or because the token's time is over.
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !logged_in => {
                    self.log_in(reference, access).await?;
                    logged_in = true;
                }
                Ok(response) if later(response.status()) && attempt < ATTEMPTS => {
                    let wait = retry_after(&response).unwrap_or(delay);
                    if wait > LONGEST_WAIT {
                        return Err(too_long(reference, response.status(), wait));
                    }
                    tokio::time::sleep(wait).await;
                }
                Ok(response) => return Ok(response),
                Err(error) if attempt >= ATTEMPTS || (error.is_connect() && error.is_timeout()) => {
                    return Err(error).cause(Cause::Registry, what);
                }
                Err(_) => tokio::time::sleep(delay).await,
            }
        }
        Err(Error::new(Cause::Registry, what()))
    }

    fn token(&self, reference: &Reference, access: Access) -> Option<String> {
        let tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = |access| tokens.get(&(name(reference), access)).cloned();
        // Who may write may read.
        token(access).or_else(|| token(Access::Write))
    }

    async fn log_in(&self, reference: &Reference, access: Access) -> Result<()> {
        let registry = self.registry(reference)?;
        let operation = match access {
            Access::Read => RegistryOperation::Pull,
            Access::Write => RegistryOperation::Push,
        };
        let refused = || {
            let next = format!("log in to {} (docker login, or $DOCKER_CONFIG/config.json)", reference.registry());
            Error::new(Cause::Auth, format!("{reference}: the registry wants other credentials")).next(next)
        };
        let token = registry.client.auth(reference, &registry.auth, operation).await.map_err(|error| {
            if matches!(error, oci_client::errors::OciDistributionError::AuthenticationFailure(_)) {
                refused()
            } else {
                Error::from_source(Cause::Auth, format!("{reference}: cannot log in"), error)
            }
        })?;
        let value = match (token, &registry.auth) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, RegistryAuth::Basic(user, password)) => {
                use base64::Engine;
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                format!("Basic {pair}")
            }
            _ => return Err(refused()),
        };
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert((name(reference), access), value);
        Ok(())
    }

    fn registry(&self, reference: &Reference) -> Result<Registry> {
        let mut registries = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let host = reference.resolve_registry().to_owned();
        if let Some(registry) = registries.get(&host) {
            return Ok(registry.clone());
        }
        let config = ClientConfig {
            protocol: if insecure(&host) { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(READ_LIMIT),
            user_agent: concat!("other-arch/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config).cause(Cause::Internal, || "cannot set up HTTP")?;
        let registry = Registry { client, auth: self.0.docker.credentials(reference.registry())? };
        registries.insert(host, registry.clone());
        Ok(registry)
    }
}

fn name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

fn url(reference: &Reference, path: &str) -> String {
    let registry = reference.resolve_registry();
    let scheme = if insecure(registry) { "http" } else { "https" };
    format!("{scheme}://{registry}/v2/{}/{path}", reference.repository())
}

fn manifest_url(reference: &Reference) -> String {
    url(reference, &format!("manifests/{}", reference.digest().or(reference.tag()).unwrap_or("latest")))
}

fn later(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How long the registry wants to be left alone: seconds, or until a date (RFC 9110, 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    Some(date.timestamp().duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default())
}

fn too_long(reference: &Reference, status: StatusCode, wait: Duration) -> Error {
    let seconds = wait.as_secs();
    let what = format!("{reference}: the registry answered {status} and wants to be asked again in {seconds} s");
    Error::new(Cause::Registry, what).next(format!(
        "wait that long, or log in: registries let users with an account ask more often ({} s is waited at most)",
        LONGEST_WAIT.as_secs()
    ))
}

/// An answer that is no error.
async fn good(response: Response, reference: &Reference) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let cause = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Cause::Auth,
        _ => Cause::Registry,
    };
    // What the registry says is for people: a little of it is enough.
    let said = limited(response, 2048, reference).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let often = if later(status) { format!(", {ATTEMPTS} times") } else { String::new() };
    let error = Error::new(cause, format!("{reference}: the registry answered {status}{often}"));
    Err(if said.is_empty() { error } else { error.line(said) })
}

async fn limited(response: Response, limit: u64, reference: &Reference) -> Result<Vec<u8>> {
    let large = || Error::new(Cause::Registry, format!("{reference}: the answer is larger than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(large());
    }
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.cause(Cause::Registry, || format!("{reference}: the answer broke off"))?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
