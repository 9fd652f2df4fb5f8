//! The referrers API, which answers in pages.

use kit::{Cause, Context, Error, Result};
use oci_spec::image::{Descriptor, ImageIndex};
use reqwest::{Method, Response, StatusCode, Url, header};

use super::{Access, Client, MANIFEST_LIMIT, good, limited, url};
use crate::{Document, Reference};

/// A list in more pages than this is taken as one without end.
const PAGES: usize = 50;

impl Client {
    /// What a registry's referrers API says of a digest, at least `enough` entries if there are so many; nothing if
    /// the registry has no such API.
    pub(crate) async fn referrer_pages(
        &self,
        repository: &Reference,
        digest: &str,
        enough: usize,
    ) -> Result<Option<Vec<Descriptor>>> {
        let first = url(repository, &format!("referrers/{digest}"));
        let mut next = Url::parse(&first).cause(Cause::Internal, || format!("'{first}' is no address"))?;
        let (home, mut found) = (next.origin(), Vec::new());
        for page in 0..PAGES {
            let response = self.send(Access::Read, repository, || self.reading(Method::GET, next.as_str())).await?;
            if page == 0 && absent(response.status()) {
                return Ok(None);
            }
            let response = good(response, repository).await?;
            let link = following(&response, &next);
            let bytes = limited(response, MANIFEST_LIMIT, repository).await?;
            let index: ImageIndex = Document::new(bytes, "list of referrers").parse()?;
            found.extend_from_slice(index.manifests());
            match link {
                // The token is for this registry only.
                Some(link) if link.origin() == home && found.len() <= enough => next = link,
                _ => return Ok(Some(found)),
            }
        }
        Err(Error::new(Cause::Registry, format!("{repository}: the list of referrers of {digest} has no end")))
    }
}

/// Registries without the API answer in different ways.
fn absent(status: StatusCode) -> bool {
    [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED]
        .contains(&status)
}

/// `Link: <…>; rel="next"` (RFC 5988).
fn following(response: &Response, here: &Url) -> Option<Url> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    (rest.contains("rel=\"next\"") || rest.contains("rel=next")).then(|| here.join(target).ok()).flatten()
}
