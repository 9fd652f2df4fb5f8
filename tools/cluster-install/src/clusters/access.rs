//! What is needed to use a cluster. What a host sends is hostile: it must not make our tools run its programs, read
//! our files or talk to somebody else.

use std::path::PathBuf;

use kit::{Cause, Error, Result, Within};
use kube::config::Kubeconfig;
use serde_json::Value;

/// How a cluster is used.
pub(super) enum Access {
    /// By files that we keep.
    Files(Box<Fetched>),
    /// As every tool knows labs.
    Lab {
        /// Its name there.
        name: String,
        /// Its own file.
        kubeconfig: PathBuf,
    },
}

/// Files, in memory.
pub(super) struct Fetched {
    /// With one context, which is called as the cluster is.
    pub(super) kubeconfig: Kubeconfig,
    /// The certificate of the cluster's registry.
    pub(super) certificate: Option<String>,
    /// The login of that registry, as Docker keeps it.
    pub(super) login: Option<String>,
}

/// Takes from a kubeconfig that somebody sent the context that it calls current, as `name`; with `server` in the place of
/// its API server's address.
///
/// # Errors
/// With `cause`, if it is none, or if it wants more of us than a connection.
pub(super) fn adopt(text: &str, name: &str, server: Option<&str>, cause: Cause) -> Result<Kubeconfig> {
    let refuse = |what: String| Error::new(cause, format!("the kubeconfig of {name} {what}"));
    // What the reader says of a text may quote it, and it holds secrets.
    let config = Kubeconfig::from_yaml(text).map_err(|_| refuse("is none".into()))?;
    let context = cluster::kubeconfig::choose(&config, "it", None, true)
        .map_err(|error| refuse(format!("has no context that is meant: {}", error.summary())))?;
    let mut own = rename(&cluster::kubeconfig::narrow(&config, &context), name);
    let Some(found) = own.clusters.first_mut().and_then(|named| named.cluster.as_mut()) else {
        return Err(refuse("has no cluster".into()));
    };
    if found.certificate_authority.is_some() {
        return Err(refuse("names a file of this machine: certificate-authority".into()));
    }
    let given = found.server.clone().unwrap_or_default();
    if !is_safe(&given) {
        return Err(refuse("names no https:// server".into()));
    }
    if let Some(server) = server {
        // The certificate is still the one for the server's own name.
        found.tls_server_name = found.tls_server_name.take().or_else(|| host_of(&given));
        found.server = Some(server.to_owned());
    }
    let Some(user) = own.auth_infos.first().and_then(|named| named.auth_info.as_ref()) else {
        return Err(refuse("has no user".into()));
    };
    let program = user.exec.is_some() || user.auth_provider.is_some();
    if program {
        return Err(refuse("would run a program on this machine".into())
            .next("what a host sends has certificates or a token in it, and no exec plugin"));
    }
    let files = [("client-certificate", &user.client_certificate), ("client-key", &user.client_key)];
    if let Some((field, _)) =
        files.into_iter().chain([("tokenFile", &user.token_file)]).find(|(_, file)| file.is_some())
    {
        return Err(refuse(format!("names a file of this machine: {field}")));
    }
    Ok(own)
}

/// Its only context, under the name that records have for the cluster.
pub(super) fn rename(narrow: &Kubeconfig, name: &str) -> Kubeconfig {
    let mut own = narrow.clone();
    own.current_context = Some(name.to_owned());
    for named in &mut own.contexts {
        name.clone_into(&mut named.name);
        if let Some(context) = &mut named.context {
            name.clone_into(&mut context.cluster);
            context.user = context.user.as_ref().map(|_| name.to_owned());
        }
    }
    own.clusters.iter_mut().for_each(|named| name.clone_into(&mut named.name));
    own.auth_infos.iter_mut().for_each(|named| name.clone_into(&mut named.name));
    own
}

/// Encrypted, or not on its way anywhere.
fn is_safe(server: &str) -> bool {
    let plain = server.strip_prefix("http://");
    server.starts_with("https://")
        || plain.is_some_and(|rest| rest.starts_with("127.0.0.1:") || rest.starts_with("[::1]:"))
}

fn host_of(server: &str) -> Option<String> {
    let rest = server.strip_prefix("https://")?.split('/').next()?;
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => rest.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// Of a login as Docker keeps it only what is a login: helpers would be programs of this machine.
///
/// # Errors
/// With `cause` if it is none.
pub(super) fn login(text: &str, cause: Cause) -> Result<String> {
    let refuse = || Error::new(cause, "the registry login is none: it has no 'auths'");
    let value: Value = serde_json::from_str(text).map_err(|_| refuse())?;
    let auths = value.get("auths").filter(|auths| auths.is_object()).ok_or_else(refuse)?;
    Ok(serde_json::json!({ "auths": auths }).to_string())
}

/// A certificate that is one, or several.
///
/// # Errors
/// With `cause` if it is none.
pub(super) fn certificate(text: &str, cause: Cause) -> Result<String> {
    if text.trim_start().starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY") {
        return Ok(text.to_owned());
    }
    Err(Error::new(cause, "it does not begin with -----BEGIN CERTIFICATE-----"))
        .within(|| "the registry certificate is none")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn text(cluster: &str, user: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: a@b, contexts: [{{name: a@b, context: {{cluster: b, user: a}}}}],\
             clusters: [{{name: b, cluster: {{{cluster}}}}}], users: [{{name: a, user: {{{user}}}}}]}}"
        )
    }

    pub(in crate::clusters) fn kubeconfig() -> Kubeconfig {
        adopt(&text("server: 'https://x'", "token: hunter2"), "z", None, Cause::Ssh).unwrap()
    }

    #[test]
    fn the_context_is_called_as_the_cluster_is() {
        let server = "server: 'https://10.0.0.7:6443', certificate-authority-data: eA==";
        let own = adopt(&text(server, "token: x"), "z-1", Some("https://z.example.org:443"), Cause::Ssh).unwrap();
        let context = own.contexts[0].context.as_ref().unwrap();
        assert_eq!((own.current_context.as_deref(), own.contexts[0].name.as_str()), (Some("z-1"), "z-1"));
        assert_eq!((context.cluster.as_str(), context.user.as_deref()), ("z-1", Some("z-1")));
        let cluster = own.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://z.example.org:443"));
        assert_eq!(cluster.tls_server_name.as_deref(), Some("10.0.0.7"));
        assert_eq!(host_of("https://[fd00::1]:6443/x").as_deref(), Some("fd00::1"));
    }

    #[test]
    fn what_wants_more_than_a_connection_is_refused() {
        let good = "server: 'https://x'";
        for (cluster, user, said) in [
            (good, "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}", "would run a program"),
            (good, "auth-provider: {name: oidc, config: {}}", "would run a program"),
            (good, "tokenFile: /root/.ssh/id_ed25519", "names a file of this machine: tokenFile"),
            (good, "client-key: /root/.ssh/id_ed25519", "names a file of this machine: client-key"),
            (good, "client-certificate: /etc/shadow", "names a file of this machine: client-certificate"),
            ("server: 'https://x', certificate-authority: /etc/shadow", "token: hunter2", "certificate-authority"),
            ("server: 'http://10.0.0.1:8080'", "token: hunter2", "no https:// server"),
            ("server: 'http://127.0.0.1.evil.example:80'", "token: hunter2", "no https:// server"),
            ("server: 'file:///etc'", "token: hunter2", "no https:// server"),
        ] {
            let error = adopt(&text(cluster, user), "z", None, Cause::Ssh).unwrap_err();
            assert!(error.cause == Cause::Ssh && error.to_string().contains(said), "{said}: {error}");
        }
        for none in ["", "hunter2", "{", "[1]", "contexts: 7", "\u{0}", &"[".repeat(5000), "{contexts: []}"] {
            let error = adopt(none, "z", None, Cause::Ssh).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        adopt(&text("server: 'http://127.0.0.1:8080'", "token: x"), "z", None, Cause::Ssh).unwrap();
    }

    #[test]
    fn a_login_runs_no_helper() {
        let given = r#"{"auths": {"r:5000": {"auth": "eDp5"}}, "credsStore": "evil", "credHelpers": {"r": "evil"}}"#;
        assert_eq!(login(given, Cause::Ssh).unwrap(), r#"{"auths":{"r:5000":{"auth":"eDp5"}}}"#);
        for none in ["", "{}", "[]", r#"{"auths": 1}"#, "hunter2"] {
            let error = login(none, Cause::Ssh).unwrap_err();
            assert!(error.cause == Cause::Ssh && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_key_is_no_certificate() {
        certificate("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", Cause::Ssh).unwrap();
        for none in
            ["", "hello", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"]
        {
            assert_eq!(certificate(none, Cause::Ssh).unwrap_err().cause, Cause::Ssh);
        }
    }
}
