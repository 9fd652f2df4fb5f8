//! Asking for objects to go: in the background, only the object that was listed, several at a time.

use cluster::{cause_of, describe};
use futures::{StreamExt, stream};
use kit::{Cause, Error, Result, record::ObjectKey};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::Resource,
};
use serde_json::json;

use crate::{
    api::{CONCURRENT, again, code},
    gone::Pending,
    list::{Listing, Object},
    order::is,
};

/// A pod of the component gets this long to end, in seconds. Never 0: that would take it out of the
/// API server while it may still run.
const GRACE: u32 = 1;

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Asked for, and gone or going.
    pub deleted: Vec<ObjectKey>,
    /// Still there for now.
    pub pending: Pending,
    /// Not deleted: what the API server said.
    pub refused: Vec<(ObjectKey, String)>,
}

/// Asks for these objects to be deleted.
///
/// # Errors
/// If the API server is away for long, or credentials have expired. That one object is refused is no
/// error here.
pub(crate) async fn delete(client: &Client, listing: &Listing, objects: &[&Object]) -> Result<Asked> {
    let each = objects.iter().filter_map(|object| Some((*object, listing.kind_of(&object.key)?)));
    let answers = stream::iter(each)
        .map(|(object, kind)| async move { (object, &kind.resource, delete_one(client, &kind.resource, object).await) })
        .buffer_unordered(CONCURRENT);
    let mut answers = std::pin::pin!(answers);
    let mut asked = Asked::default();
    while let Some((object, resource, answer)) = answers.next().await {
        match answer {
            Ok(going) => {
                asked.deleted.push(object.key.clone());
                if going {
                    asked.pending.add(resource, &object.uid, &object.key);
                }
            }
            Err(error) if fatal(&error) => return Err(cluster::fail(format!("cannot delete {}", object.key), &error)),
            Err(error) => asked.refused.push((object.key.clone(), describe(&error))),
        }
    }
    Ok(asked)
}

/// Whether it makes no sense to go on with other objects.
fn fatal(error: &kube::Error) -> bool {
    match code(error) {
        Some(code) => code == 401,
        None => !matches!(cause_of(error), Cause::Unclassified),
    }
}

/// The object's own address.
#[must_use]
pub(crate) fn api_of(client: &Client, resource: &ApiResource, key: &ObjectKey) -> Api<DynamicObject> {
    if key.namespace.is_empty() {
        Api::all_with(client.clone(), resource)
    } else {
        Api::namespaced_with(client.clone(), &key.namespace, resource)
    }
}

/// Whether it is still there afterwards.
async fn delete_one(client: &Client, resource: &ApiResource, object: &Object) -> Result<bool, kube::Error> {
    let mut params = DeleteParams::background();
    // Never another one of the same name.
    params.preconditions = Some(Preconditions { uid: Some(object.uid.clone()), resource_version: None });
    if is(&object.key, "", "Pod") {
        params = params.grace_period(GRACE);
    }
    let api = api_of(client, resource, &object.key);
    match again(|| api.delete(&object.key.name, &params)).await {
        // An answer with a deletion time: it goes when its finalizers or its grace period allow.
        Ok(answer) => Ok(answer.left().is_some_and(|left| left.meta().deletion_timestamp.is_some())),
        Err(error) => match code(&error) {
            Some(404) => Ok(false),
            // A namespace that is going already; or another object of this name, which the next look finds.
            Some(409) => Ok(is(&object.key, "", "Namespace")),
            _ => Err(error),
        },
    }
}

/// Takes all finalizers off an object, so that it goes without what they stand for.
///
/// # Errors
/// What the API server says.
pub(crate) async fn force(client: &Client, resource: &ApiResource, uid: &str, key: &ObjectKey) -> Result<()> {
    let api = api_of(client, resource, key);
    // With its UID: never another one of the same name.
    let patch = Patch::Merge(json!({"metadata": {"uid": uid, "finalizers": null}}));
    let plain = PatchParams::default();
    match again(|| api.patch(&key.name, &plain, &patch)).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == Some(404) => Ok(()),
        Err(error) => Err(cluster::fail(format!("cannot take the finalizers off {key}"), &error)),
    }
}

/// Stops the API server from asking a dead webhook to convert custom resources.
///
/// # Errors
/// What the API server says.
pub(crate) async fn stop_conversion(client: &Client, resource: &ApiResource, object: &Object) -> Result<()> {
    let api = api_of(client, resource, &object.key);
    let none = json!({"metadata": {"uid": object.uid}, "spec": {"conversion": {"strategy": "None", "webhook": null}}});
    let (plain, patch) = (PatchParams::default(), Patch::Merge(&none));
    match again(|| api.patch(&object.key.name, &plain, &patch)).await {
        Err(error) if !matches!(code(&error), Some(404 | 409)) => {
            Err::<(), Error>(cluster::fail(format!("cannot stop the conversions of {}", object.key), &error))
        }
        _ => Ok(()),
    }
}
