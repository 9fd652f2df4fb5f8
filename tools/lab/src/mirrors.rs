//! Which public registries a lab answers for.

use std::path::Path;

use kit::{Cause, Error, Result, Within};

/// The public registries that a lab stands in for: those `named`, and those of the names in `images` (by default
/// the workspace's).
pub(crate) fn hosts(named: &[String], images: Option<&Path>) -> Result<Vec<String>> {
    let file = images.map(Path::to_path_buf).or_else(|| {
        let workspace = kit::dirs::workspace().ok()?;
        Some(workspace.join("ci/images.toml")).filter(|file| file.is_file())
    });
    let mut hosts = named.to_vec();
    if let Some(file) = file {
        let map: kit::ci::ImageMap = kit::config::read(&file)?;
        let names = map.image.iter().flat_map(|image| &image.names);
        hosts.extend(names.filter_map(|name| registry_of(name)));
    }
    hosts.sort();
    hosts.dedup();
    hosts.iter().try_for_each(|host| check_host(host)).within(|| "names of public registries")?;
    Ok(hosts)
}

/// The registry's part of a reference; Docker's own when there is none (distribution/reference).
fn registry_of(name: &str) -> Option<String> {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => Some(host.to_owned()),
        _ if name.is_empty() => None,
        _ => Some("docker.io".to_owned()),
    }
}

/// A host becomes a folder's name.
fn check_host(host: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    if !host.is_empty() && !host.starts_with('.') && host.chars().all(good) {
        return Ok(());
    }
    Err(Error::new(Cause::Usage, format!("'{host}' is not a registry's host")).next("write HOST or HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_a_reference() {
        for (name, host) in [
            ("mirror.gcr.io/busybox:latest", "mirror.gcr.io"),
            ("localhost:5000/x", "localhost:5000"),
            ("library/busybox", "docker.io"),
            ("busybox", "docker.io"),
        ] {
            assert_eq!(registry_of(name).as_deref(), Some(host));
        }
    }

    #[test]
    fn a_host_cannot_leave_its_folder() {
        assert!(check_host("ghcr.io").is_ok());
        for host in ["", "..", "a/b", "a b", ".x"] {
            assert_eq!(check_host(host).unwrap_err().cause, Cause::Usage, "{host}");
        }
    }
}
