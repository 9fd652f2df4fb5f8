//! Asking for objects to go: in the background, only the object that was listed, several at a time.

use std::collections::{BTreeMap, HashSet};

use cluster::{cause_of, describe};
use futures::{StreamExt, stream};
use kit::{Cause, Error, Result, record::ObjectKey};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
    core::Resource,
};
use serde_json::json;

use crate::{
    api::{CONCURRENT, again, answered, code},
    gone::Pending,
    list::{Listing, Object},
    order::is,
};

/// A pod of the component gets this long to end, in seconds. Never 0: that would take it out of the
/// API server while it may still run.
pub(crate) const GRACE: u32 = 1;

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

/// Fewer than this of a kind in a namespace are asked for one by one: the API server works through a
/// collection one after the other.
const COLLECTION: usize = 8;

/// Asks for these objects to be deleted; for many of a kind in a namespace of `going`, which goes as a whole,
/// with one request.
///
/// # Errors
/// If the API server is away for long, or credentials have expired. That one object is refused is no
/// error here.
pub(crate) async fn delete(
    client: &Client,
    listing: &Listing,
    objects: &[&Object],
    going: &HashSet<&str>,
) -> Result<Asked> {
    let mut asked = Asked::default();
    let single = collections(client, listing, objects, going, &mut asked).await;
    let each = single.into_iter().filter_map(|object| Some((object, listing.kind_of(&object.key)?)));
    let answers = stream::iter(each)
        .map(|(object, kind)| async move { (object, &kind.resource, delete_one(client, &kind.resource, object).await) })
        .buffer_unordered(CONCURRENT);
    let mut answers = std::pin::pin!(answers);
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

/// Deletes what can be deleted as collections; returns what is left to be asked for one by one.
async fn collections<'a>(
    client: &Client,
    listing: &Listing,
    objects: &[&'a Object],
    going: &HashSet<&str>,
    asked: &mut Asked,
) -> Vec<&'a Object> {
    let (sets, mut single) = sets(objects, going);
    let answers = stream::iter(sets).map(|set| async move {
        let Some(kind) = listing.kind_of(&set[0].key) else { return (set, None) };
        let api = api_of(client, &kind.resource, &set[0].key);
        let params = params_of(set[0]);
        let all = ListParams::default();
        // Not allowed, not served for this kind, or the server is away: one by one, with all that this knows.
        let deleted = answered(api.delete_collection(&params, &all)).await;
        (set, deleted.is_ok().then_some(&kind.resource))
    });
    let mut answers = std::pin::pin!(answers.buffer_unordered(CONCURRENT));
    while let Some((set, done)) = answers.next().await {
        let Some(resource) = done else {
            single.extend(set);
            continue;
        };
        for object in set {
            asked.deleted.push(object.key.clone());
            asked.pending.add(resource, &object.uid, &object.key);
        }
    }
    single
}

/// Objects that go together: many of a kind in a namespace that goes with everything in it.
fn sets<'a>(objects: &[&'a Object], going: &HashSet<&str>) -> (Vec<Vec<&'a Object>>, Vec<&'a Object>) {
    let mut sets: BTreeMap<(&str, &str, &str), Vec<&Object>> = BTreeMap::new();
    let mut single = Vec::new();
    for &object in objects {
        let key = &object.key;
        if !key.namespace.is_empty() && going.contains(key.namespace.as_str()) {
            sets.entry((&key.namespace, &key.api_version, &key.kind)).or_default().push(object);
        } else {
            single.push(object);
        }
    }
    let (sets, few): (Vec<_>, Vec<_>) = sets.into_values().partition(|set| set.len() >= COLLECTION);
    single.extend(few.into_iter().flatten());
    (sets, single)
}

fn params_of(object: &Object) -> DeleteParams {
    let params = DeleteParams::background();
    if is(&object.key, "", "Pod") { params.grace_period(GRACE) } else { params }
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
    // Never another one of the same name.
    let uid = Preconditions { uid: Some(object.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(uid), ..params_of(object) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;

    #[test]
    fn only_what_goes_with_its_namespace_goes_as_a_collection() {
        let many = |namespace: &str| -> Vec<Object> {
            (0..COLLECTION).map(|index| object(&format!("Run.tekton.dev/v1 {namespace}/r{index}"), "u")).collect()
        };
        let mut all = many("going");
        all.extend(many("stays"));
        all.push(object("Pod.v1 going/p", "u"));
        let all: Vec<&Object> = all.iter().collect();
        let (sets, single) = sets(&all, &["going"].into());
        assert_eq!((sets.len(), sets[0].len(), single.len()), (1, COLLECTION, COLLECTION + 1));
        assert!(sets[0].iter().all(|object| object.key.namespace == "going" && object.key.kind == "Run"));
    }

    #[test]
    fn pods_get_a_second_and_nothing_is_deleted_in_the_foreground() {
        let pod = params_of(&object("Pod.v1 a/b", "1"));
        assert_eq!(pod.grace_period_seconds, Some(1));
        let map = params_of(&object("ConfigMap.v1 a/b", "1"));
        assert_eq!(map.grace_period_seconds, None);
        assert!(matches!(map.propagation_policy, Some(kube::api::PropagationPolicy::Background)));
    }
}
