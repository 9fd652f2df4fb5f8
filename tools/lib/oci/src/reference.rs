//! Image references: how they are read, and what follows from a registry's name.

use kit::{Cause, Context, Result};
pub use oci_client::Reference;

/// Reads a reference; a missing registry is Docker Hub, a missing tag and digest is `latest`.
///
/// # Errors
/// [`Cause::Usage`] naming the text.
pub fn parse(text: &str) -> Result<Reference> {
    text.parse().cause(Cause::Usage, || format!("'{text}' is no image reference"))
}

/// The same repository, by digest alone.
#[must_use]
pub fn pinned(reference: &Reference, digest: &str) -> Reference {
    reference.clone_with_digest(digest.to_owned())
}

/// Whether a registry is spoken to by plain HTTP: this machine, `*.local`, `*.localhost` and private IPv4
/// addresses, as go-containerregistry (and so ko) decides it (`pkg/name/registry.go`, `Scheme`).
#[must_use]
pub fn insecure(registry: &str) -> bool {
    let host = registry
        .rsplit_once(':')
        .map_or(registry, |(host, port)| if port.bytes().all(|b| b.is_ascii_digit()) { host } else { registry });
    let private = host.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_private() || address.is_loopback());
    private
        || (host == "localhost" && registry != host)
        || host.ends_with(".local")
        || host.ends_with(".localhost")
        || registry.contains("::1")
}

/// Where a registry holds our stand-in for a public image: `REGISTRY/mirror/HOST/PATH` with the tag that
/// the image is named by, or with `key`, a tag for the stand-in's content, if it is named by digest.
///
/// # Errors
/// [`Cause::Usage`] if `name` is no reference.
pub fn mirror(registry: &str, name: &str, key: &str) -> Result<Reference> {
    let public = parse(name)?;
    let tag = public.tag().filter(|_| public.digest().is_none()).unwrap_or(key);
    parse(&format!("{registry}/mirror/{}/{}:{tag}", public.registry(), public.repository()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_private_networks() {
        for registry in [
            "localhost:5000",
            "127.0.0.1:1",
            "10.1.2.3:5000",
            "172.31.0.1",
            "192.168.1.1:80",
            "kind.local",
            "x.localhost:99",
            "[::1]:5000",
        ] {
            assert!(insecure(registry), "{registry}");
        }
        for registry in ["ghcr.io", "docker.io", "172.32.0.1", "8.8.8.8:5000", "localhost", "local.example.com"] {
            assert!(!insecure(registry), "{registry}");
        }
    }

    #[test]
    fn a_mirror_keeps_the_tag_and_drops_the_digest() {
        let to = |name| mirror("10.0.0.1:5000", name, "key").unwrap().whole();
        assert_eq!(to("mirror.gcr.io/busybox:latest"), "10.0.0.1:5000/mirror/mirror.gcr.io/busybox:latest");
        let digest = format!("cgr.dev/chainguard/busybox@sha256:{}", "a".repeat(64));
        assert_eq!(to(&digest), "10.0.0.1:5000/mirror/cgr.dev/chainguard/busybox:key");
        assert_eq!(to("busybox"), "10.0.0.1:5000/mirror/docker.io/library/busybox:latest");
        assert_eq!(parse("A b").unwrap_err().cause, Cause::Usage);
    }
}
