//! What an error of the Kubernetes client means: the one place that turns it into a cause.

use std::error::Error as StdError;

use kit::{Cause, Error, Result};
use kube::client::AuthError;

use crate::kubeconfig::EXEC_LIMIT;

/// Who has to act on an error of the client.
///
/// Codes are the API conventions' (kubernetes/community, api-conventions.md, "HTTP Status codes").
#[must_use]
pub fn cause_of(error: &kube::Error) -> Cause {
    use kube::Error as E;
    match error {
        E::Api(status) => cause_of_status(status.code, &status.message),
        E::Auth(_) => Cause::Auth,
        E::InferConfig(_) | E::InferKubeconfig(_) | E::ProxyProtocolUnsupported { .. } | E::RustlsTls(_) => {
            Cause::Usage
        }
        E::SerdeError(_) | E::FromUtf8(_) | E::LinesCodecMaxLineLengthExceeded => Cause::Apiserver,
        E::HyperError(_) | E::Service(_) | E::ReadEvents(_) => cause_of_connection(error),
        E::Discovery(_) => Cause::Usage,
        _ => Cause::Unclassified,
    }
}

fn cause_of_status(code: u16, message: &str) -> Cause {
    match code {
        // What the API server says when a webhook of the cluster did not answer it.
        _ if message.contains("failed calling webhook") => Cause::Webhook,
        403 if message.contains("exceeded quota") => Cause::Quota,
        // What stands in the way is an earlier installation that is still going.
        403 if message.contains("being terminated") => Cause::NotAtBaseline,
        // A webhook or a policy of the cluster understood the object, and does not want it.
        403 if message.contains("denied the request") || message.contains("violates PodSecurity") => Cause::Product,
        401 | 403 => Cause::Auth,
        408 | 429 | 500.. => Cause::Apiserver,
        // Ours or the release's: the server understood, and refuses what it was sent.
        400 | 409 | 415 | 422 => Cause::Product,
        _ => Cause::Unclassified,
    }
}

fn cause_of_connection(error: &kube::Error) -> Cause {
    let text = chain(error).to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if chain_has::<AuthError>(error) || any(&["certificate", "exec plugin", "auth exec"]) {
        Cause::Auth
    } else if any(&["dns error", "failed to lookup address"]) {
        Cause::Dns
    } else {
        Cause::ClusterUnreachable
    }
}

fn chain_has<T: StdError + 'static>(error: &kube::Error) -> bool {
    let mut next = Some(error as &dyn StdError);
    while let Some(error) = next {
        if error.is::<T>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        // Many libraries repeat the inner error in the outer one.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}

/// The error in words, on one line, without the library's own noise.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::Auth(error) => describe_auth(error),
        error => chain(error).replace("ServiceError: ", "").replace("HyperError: ", ""),
    }
}

/// The library would print the whole output of the program, which holds the credentials.
fn describe_auth(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } if out.status.code() == Some(124) => {
            format!("the kubeconfig's exec plugin gave no credentials within {EXEC_LIMIT} s")
        }
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let last: String = last.chars().take(300).collect();
            format!("the kubeconfig's exec plugin failed ({}): {last}", out.status)
        }
        AuthError::AuthExecParse(_) => "the kubeconfig's exec plugin gave no credentials that can be read".into(),
        other => chain(other),
    }
}

/// Our error for it, while doing `what`.
#[must_use]
pub fn fail(what: impl Into<String>, error: &kube::Error) -> Error {
    let cause = cause_of(error);
    let failure = Error::from_source(cause, what, describe(error));
    match cause {
        Cause::Auth => failure.next("check the credentials of the kubeconfig: are they valid, and may they do this?"),
        _ => failure,
    }
}

/// Turns the client's error into ours.
pub trait KubeContext<T> {
    /// While doing `what`.
    ///
    /// # Errors
    /// The error, with the cause that [`cause_of`] finds.
    fn kube<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> KubeContext<T> for Result<T, kube::Error> {
    fn kube<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| fail(what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "x").with_code(code)))
    }

    #[test]
    fn answers_of_the_server() {
        for (code, message, cause) in [
            (401, "Unauthorized", Cause::Auth),
            (403, "forbidden", Cause::Auth),
            (403, "exceeded quota: pods", Cause::Quota),
            (403, "admission webhook \"w\" denied the request: no", Cause::Product),
            (403, "unable to create new content in namespace x because it is being terminated", Cause::NotAtBaseline),
            (409, "conflict", Cause::Product),
            (422, "invalid", Cause::Product),
            (429, "too many requests", Cause::Apiserver),
            (500, "etcdserver: no leader", Cause::Apiserver),
            (500, "Internal error occurred: failed calling webhook \"x\"", Cause::Webhook),
            (503, "", Cause::Apiserver),
            (418, "teapot", Cause::Unclassified),
        ] {
            assert_eq!(cause_of(&api(code, message)), cause, "{code} {message}");
        }
    }

    #[test]
    fn faults_of_the_connection() {
        let service = |text: &str| kube::Error::Service(std::io::Error::other(text.to_owned()).into());
        assert_eq!(cause_of(&service("tcp connect error: Connection refused")), Cause::ClusterUnreachable);
        assert_eq!(cause_of(&service("Connection reset by peer")), Cause::ClusterUnreachable);
        assert_eq!(cause_of(&service("dns error: no record")), Cause::Dns);
        assert_eq!(cause_of(&service("invalid peer certificate: Expired")), Cause::Auth);
    }

    #[test]
    fn words_without_noise() {
        let error = fail("cannot list pods", &api(403, "pods is forbidden"));
        assert!(error.to_string().starts_with("cannot list pods: pods is forbidden\n"), "{error}");
    }
}
