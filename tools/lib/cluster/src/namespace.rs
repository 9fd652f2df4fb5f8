//! The namespace of our own state, which goes with the last of its contents.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kit::{Cause, Error, Result};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{conditions, wait::await_condition},
};

use crate::{KubeContext, NAMESPACE, lease::patient};

/// How long it is at least there once somebody has asked it to go (kubernetes/pkg/controller/namespace,
/// namespaceDeletionGracePeriod).
pub(crate) const LINGERS: Duration = Duration::from_secs(5);
/// How long it may take to go.
const GOING: Duration = Duration::from_secs(60);

/// Waits until our namespace is not on its way out, which would keep us from writing into it.
///
/// # Errors
/// [`Cause::NotAtBaseline`] if it is stuck; otherwise as [`crate::cause_of`] says.
pub async fn settled(client: &Client) -> Result<()> {
    let Some(namespace) = read(client).await?.filter(is_going) else { return Ok(()) };
    let (all, uid) = (Api::all(client.clone()), namespace.uid().unwrap_or_default());
    match tokio::time::timeout(GOING, await_condition(all, NAMESPACE, conditions::is_deleted::<Namespace>(&uid))).await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            Err(Error::from_source(Cause::Apiserver, format!("cannot watch the namespace {NAMESPACE}"), error))
        }
        Err(_) => {
            Err(Error::new(Cause::NotAtBaseline, format!("the namespace {NAMESPACE} is being deleted and does not go"))
                .next(format!("see what holds it: kubectl get namespace {NAMESPACE} -o yaml")))
        }
    }
}

/// Whether our namespace is on its way out: what is in it is forgotten, although some of it can still be read.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn going(client: &Client) -> Result<bool> {
    Ok(read(client).await?.is_some_and(|namespace| is_going(&namespace)))
}

/// The namespace of our own state; nothing where we may not see it either.
async fn read(client: &Client) -> Result<Option<Namespace>> {
    let namespaces = Api::<Namespace>::all(client.clone());
    match patient(|| namespaces.get_opt(NAMESPACE)).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        other => other.kube(|| format!("cannot read the namespace {NAMESPACE}")),
    }
}

fn is_going(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// Creates the namespace of our own state.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn ensure(client: &Client) -> Result<()> {
    create(client).await.kube(|| format!("cannot create the namespace {NAMESPACE}"))
}

pub(crate) async fn create(client: &Client) -> Result<(), kube::Error> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.into());
    match Api::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
