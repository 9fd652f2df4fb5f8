//! When what opens a cluster expires: certificates and tokens, as they say themselves.

mod server;

use std::path::Path;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use kit::{Cause, Error, Result, rundir::read_limited};
use kube::config::{AuthInfo, Cluster};
use serde_json::Value;
use x509_parser::{certificate::X509Certificate, pem::Pem, prelude::FromDer};

use crate::{Opened, kubeconfig};

/// A larger file is no certificate.
const LIMIT: u64 = 1 << 20;

/// Something with an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What it is, in words.
    pub what: String,
    /// When it ends.
    pub at: Timestamp,
}

/// Everything with an end that the cluster's kubeconfig has, and that its API server shows; blocks for some seconds
/// if that does not answer. A token that is read from a file again and again
/// is renewed by whoever writes that file, and one of a program by that program.
///
/// # Errors
/// [`Cause::Usage`] for a certificate that cannot be read.
pub fn expiries(opened: &Opened) -> Result<Vec<Expiry>> {
    let config = kubeconfig::read(&opened.kubeconfig)?;
    let context = config.current_context.clone().unwrap_or_default();
    let config = kubeconfig::narrow(&config, &context);
    let users = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let mut all = Vec::new();
    for user in users {
        all.extend(of_user(user)?);
    }
    for cluster in clusters {
        all.extend(of_cluster(cluster)?);
        // Where a proxy stands between, nobody sees it.
        let shown = server::certificate(&opened.server, cluster.tls_server_name.as_deref());
        let end = shown.and_then(|shown| end_of(&X509Certificate::from_der(&shown).ok()?.1).ok());
        all.extend(end.map(|at| Expiry { what: "the API server's certificate".into(), at }));
    }
    Ok(all)
}

/// Logins to registries that say when they end, by a Docker config.json: those whose password or token is a JWT, as
/// services give them out for some hours. Of any other nobody but the registry knows.
#[must_use]
pub fn logins(config: &str) -> Vec<Expiry> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let mut all = Vec::new();
    for (registry, login) in config["auths"].as_object().into_iter().flatten() {
        let word = |name: &str| login[name].as_str().map(str::to_owned);
        let pair = word("auth").and_then(|auth| String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok());
        let password = pair.and_then(|pair| Some(pair.split_once(':')?.1.to_owned()));
        let secrets = [password, word("password"), word("identitytoken"), word("registrytoken")];
        let end = secrets.iter().flatten().filter_map(|secret| token_end(secret)).min();
        all.extend(end.map(|at| Expiry { what: format!("the login of {registry}"), at }));
    }
    all
}

fn of_user(user: &AuthInfo) -> Result<Vec<Expiry>> {
    let what = "the client certificate";
    // The first is the client's own; what follows leads to its authority.
    let own =
        pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref(), what)?.into_iter().next();
    // The library hides it from all but whoever writes a kubeconfig.
    let token = serde_json::to_value(user).ok().and_then(|user| token_end(user["token"].as_str()?));
    let token = token.map(|at| Expiry { what: "the token".into(), at });
    Ok(own.map(|at| Expiry { what: what.into(), at }).into_iter().chain(token).collect())
}

fn of_cluster(cluster: &Cluster) -> Result<Option<Expiry>> {
    let what = "the cluster's certificate authority";
    let all = pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref(), what)?;
    // One of several is enough: the others are on their way in or out.
    Ok(all.into_iter().max().map(|at| Expiry { what: what.into(), at }))
}

/// The ends of the certificates in `data` (base64 of PEM) or in a file.
fn pem(data: Option<&str>, file: Option<&str>, what: &str) -> Result<Vec<Timestamp>> {
    let wrong = |why: String| Error::new(Cause::Usage, format!("{what} of the kubeconfig cannot be read: {why}"));
    let bytes = match (data, file) {
        (Some(data), _) => {
            let data: String = data.split_whitespace().collect();
            STANDARD.decode(data).map_err(|_| wrong("it is not base64".into()))?
        }
        (None, Some(file)) => read_limited(Path::new(file), LIMIT)?,
        (None, None) => return Ok(Vec::new()),
    };
    let mut ends = Vec::new();
    for block in Pem::iter_from_buffer(&bytes) {
        let block = block.map_err(|error| wrong(error.to_string()))?;
        let certificate = block.parse_x509().map_err(|error| wrong(error.to_string()))?;
        ends.push(end_of(&certificate).map_err(wrong)?);
    }
    Ok(ends)
}

fn end_of(certificate: &X509Certificate<'_>) -> Result<Timestamp, String> {
    let end = certificate.validity().not_after.timestamp();
    Timestamp::from_second(end).map_err(|error| error.to_string())
}

/// When a token ends, if it says so (a JWT's `exp`, RFC 7519).
fn token_end(token: &str) -> Option<Timestamp> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_ends() {
        // {"exp":1800000000}, in base64 for URLs without padding.
        assert_eq!(token_end("e30.eyJleHAiOjE4MDAwMDAwMDB9.x"), Timestamp::from_second(1_800_000_000).ok());
        for none in ["", "opaque", "a.b.c", "e30.e30.x"] {
            assert_eq!(token_end(none), None, "{none}");
        }
    }

    #[test]
    fn a_registry_s_login_ends_with_its_token() {
        let token = "e30.eyJleHAiOjE4MDAwMDAwMDB9.x";
        let pair = STANDARD.encode(format!("me:{token}"));
        let config = serde_json::json!({ "auths": {
            "a.example": { "auth": pair },
            "b.example": { "identitytoken": token, "password": "opaque" },
            "c.example": { "auth": STANDARD.encode("me:opaque") },
            "d.example": { "auth": "!", "password": 7 },
        }});
        let ends = logins(&config.to_string());
        let named: Vec<_> = ends.iter().map(|end| (end.what.as_str(), end.at.as_second())).collect();
        assert_eq!(named, [("the login of a.example", 1_800_000_000), ("the login of b.example", 1_800_000_000)]);
        assert!(logins("{").is_empty() && logins("[]").is_empty());
    }

    #[test]
    fn what_is_no_certificate_is_an_error_without_its_content() {
        let user = AuthInfo { client_certificate_data: Some("hunter2!".into()), ..AuthInfo::default() };
        let error = of_user(&user).unwrap_err();
        assert!(error.cause == Cause::Usage && !error.to_string().contains("hunter2"), "{error}");
    }
}
