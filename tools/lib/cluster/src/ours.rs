//! Pods of our own, in our namespace: what only a pod can find out of a cluster.

use k8s_openapi::api::core::v1::Pod;
use kit::{Cause, Error, Result, retry};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{KubeContext, NAMESPACE, cause_of, describe, fail, namespace};

/// The pods of our namespace.
#[must_use]
pub fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Removes a pod without giving it time.
#[must_use]
pub fn at_once() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }
}

/// Removes the pods with this label: those of a tool that was killed before it could do that itself.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn forget(client: &Client, label: &str) -> Result<()> {
    let left = pods(client).delete_collection(&at_once(), &ListParams::default().labels(label)).await;
    left.map(drop).kube(|| format!("cannot remove our own pods of {NAMESPACE}"))
}

/// Creates a pod. A namespace that was just made has no service account yet, and one that is just going takes
/// nothing: then it is tried again, until `deadline`.
///
/// # Errors
/// As [`crate::cause_of`] says; what another manifest may be spared is in the inner result.
pub async fn create(client: &Client, manifest: &Value, deadline: Instant) -> Result<Result<Pod, kube::Error>> {
    let pod: Pod = serde_json::from_value(manifest.clone())
        .map_err(|error| Error::from_source(Cause::Internal, "cannot describe the pod", error))?;
    let mut delays = retry::delays();
    loop {
        let error = match pods(client).create(&PostParams::default(), &pod).await {
            Ok(pod) => return Ok(Ok(pod)),
            Err(error) => error,
        };
        let (cause, text) = (cause_of(&error), describe(&error));
        if cause == Cause::Product || text.contains("security context constraint") {
            return Ok(Err(error));
        }
        let away = [Cause::NotAtBaseline, Cause::Apiserver, Cause::ClusterUnreachable, Cause::Webhook];
        let missing = matches!(&error, kube::Error::Api(status) if status.code == 404);
        let passes = away.contains(&cause) || missing || text.contains("serviceaccount");
        let delay = delays.next().unwrap_or_default();
        if !passes || Instant::now() + delay > deadline {
            return Err(fail("cannot create its pod", &error));
        }
        sleep(delay).await;
        namespace::ensure(client).await?;
    }
}
