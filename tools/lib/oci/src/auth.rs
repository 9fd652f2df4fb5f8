//! Credentials for registries, from where Docker and ko keep them.
//!
//! Nothing here is ever shown: errors name the file and the registry, never what was read.

use std::{collections::HashMap, path::PathBuf, process::Command, time::Duration};

use base64::Engine;
use kit::{Cause, Error, Process, Result};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// Docker's `config.json`, as far as it concerns registries.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl DockerConfig {
    /// `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`; empty if there is none.
    pub(crate) fn load() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
        let Some(path) = folder.map(|folder| folder.join("config.json")).filter(|path| path.is_file()) else {
            return Ok(Self::default());
        };
        let bytes = kit::rundir::read_limited(&path, 1 << 20).map_err(|mut error| {
            error.cause = Cause::Auth;
            error
        })?;
        // serde's message could quote a secret, so only the place is told.
        serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            Error::new(Cause::Auth, format!("{} is no Docker configuration ({place})", path.display()))
        })
    }

    /// What is known for a registry; anonymous if nothing is.
    pub(crate) fn credentials(&self, registry: &str) -> Result<RegistryAuth> {
        if let Some(helper) = self.cred_helpers.get(registry) {
            return ask_helper(helper, registry);
        }
        let entry = self.auths.iter().find(|(key, _)| host(key) == host(registry)).map(|(_, entry)| entry);
        if let Some(auth) = entry.and_then(Entry::decode) {
            return Ok(auth);
        }
        match (&self.creds_store, entry) {
            // Docker leaves an empty entry for what its store holds.
            (Some(store), Some(_)) => ask_helper(store, registry),
            _ => Ok(RegistryAuth::Anonymous),
        }
    }
}

impl Entry {
    fn decode(&self) -> Option<RegistryAuth> {
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            return Some(RegistryAuth::Basic(username.clone(), password.clone()));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(self.auth.as_deref()?.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(RegistryAuth::Basic(username.into(), password.trim_end_matches('\0').into()))
    }
}

/// The host of a key such as `https://index.docker.io/v1/`.
fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = key.split('/').next().unwrap_or(key);
    if host == "docker.io" { "index.docker.io" } else { host }
}

/// Docker's protocol of credential helpers: the registry on standard input, JSON on standard output.
fn ask_helper(helper: &str, registry: &str) -> Result<RegistryAuth> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get");
    let process = Process::new(format!("credentials for {registry}"), command).cause(Cause::Auth);
    let said = process.input(registry).limit(Duration::from_secs(30)).read()?;
    let helped: Helped = serde_json::from_str(&said).map_err(|_| {
        Error::new(Cause::Auth, format!("docker-credential-{helper} gave no credentials for {registry}"))
    })?;
    Ok(RegistryAuth::Basic(helped.username, helped.secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn finds_a_registry_under_its_spellings() {
        let text =
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"ghcr.io":{"username":"a","password":"b"}}}"#;
        let config = config(text);
        assert!(config.credentials("docker.io").unwrap() == RegistryAuth::Basic("u".into(), "p".into()));
        assert!(config.credentials("ghcr.io").unwrap() == RegistryAuth::Basic("a".into(), "b".into()));
        assert!(config.credentials("quay.io").unwrap() == RegistryAuth::Anonymous);
    }

    #[test]
    fn a_damaged_entry_is_no_credential() {
        let config = config(r#"{"auths":{"a":{"auth":"%%%"},"b":{"auth":"dQ=="},"c":{}}}"#);
        for registry in ["a", "b", "c"] {
            assert!(config.credentials(registry).unwrap() == RegistryAuth::Anonymous);
        }
    }
}
