//! Asking for objects to go: in the background, only the object that was listed, several at a time.

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    time::Instant,
};

use cluster::{cause_of, describe};
use futures::{StreamExt, stream};
use kit::{Cause, Result, record::ObjectKey};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use crate::{
    api::{CONCURRENT, again, answered, code},
    gone::Pending,
    list::{Listing, Object},
    order::is,
};

/// A pod that was added since the baseline gets this long to end, in seconds: it is the component's own, or its tests'.
/// Never 0: that would take it out of the API server while it may still run.
pub(crate) const GRACE: u32 = 1;

/// Fewer than this of a kind in a namespace are asked for one by one: the API server works through a
/// collection one after the other.
const COLLECTION: usize = 3;

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Asked for, and gone or going.
    pub deleted: Vec<ObjectKey>,
    /// Still there for now.
    pub pending: Pending,
    /// Not deleted: what the API server said.
    pub refused: Vec<(ObjectKey, String)>,
    /// Not asked for, or not answered: the time was over.
    pub late: usize,
}

impl Asked {
    fn extend(&mut self, other: Self) {
        self.deleted.extend(other.deleted);
        self.pending.extend(other.pending);
        self.refused.extend(other.refused);
        self.late += other.late;
    }
}

/// How objects are asked to go.
pub(crate) struct Asking<'a> {
    /// The cluster.
    pub client: &'a Client,
    /// Where they were seen.
    pub listing: &'a Listing,
    /// Namespaces that go, each with everything in it.
    pub going: &'a HashSet<&'a str>,
    /// When the time of the stage is over.
    pub deadline: Instant,
    /// Whether pods get [`GRACE`] instead of the time that they ask for.
    pub hurry: bool,
}

impl Asking<'_> {
    /// Asks for these objects to be deleted: namespaces first, in which nobody can make anything any more from then on;
    /// many of a kind in a namespace that goes as a whole with one request.
    ///
    /// # Errors
    /// If the API server is away for long, or credentials have expired. That one object is refused is no
    /// error here.
    pub(crate) async fn delete(&self, objects: &[&Object]) -> Result<Asked> {
        let namespace = |object: &&Object| is(&object.key, "", "Namespace");
        let (namespaces, others): (Vec<&Object>, Vec<&Object>) = objects.iter().copied().partition(namespace);
        let mut asked = self.each(namespaces.iter().copied()).await?;
        // One that did not become one that is going may be another one by now: nothing in it goes unseen.
        let mut going = self.going.clone();
        for namespace in namespaces {
            if !asked.pending.iter().any(|(_, uid, _)| *uid == namespace.uid) {
                going.remove(namespace.key.name.as_str());
            }
        }
        let (sets, single) = sets(&others, &going);
        let ((collected, left), one_by_one) = tokio::join!(self.collections(sets), self.each(single));
        asked.extend(collected);
        asked.extend(one_by_one?);
        asked.extend(self.each(left).await?);
        Ok(asked)
    }

    async fn each<'o>(&self, objects: impl IntoIterator<Item = &'o Object>) -> Result<Asked> {
        let mut asked = Asked::default();
        let each = objects.into_iter().filter_map(|object| Some((object, self.listing.kind_of(&object.key)?)));
        let answers = stream::iter(each).map(|(object, kind)| async move {
            (object, &kind.resource, self.in_time(self.delete_one(&kind.resource, object)).await)
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(CONCURRENT));
        while let Some((object, resource, answer)) = answers.next().await {
            match answer {
                None => asked.late += 1,
                Some(Ok(going)) => {
                    asked.deleted.push(object.key.clone());
                    if going {
                        asked.pending.add(resource, &object.uid, &object.key);
                    }
                }
                Some(Err(error)) if fatal(&error) => {
                    return Err(cluster::fail(format!("cannot delete {}", object.key), &error));
                }
                Some(Err(error)) => asked.refused.push((object.key.clone(), describe(&error))),
            }
        }
        Ok(asked)
    }

    /// Deletes collections; returns also what is left to be asked for one by one.
    async fn collections<'o>(&self, sets: Vec<Vec<&'o Object>>) -> (Asked, Vec<&'o Object>) {
        let (mut asked, mut left) = (Asked::default(), Vec::new());
        let answers = stream::iter(sets).map(|set| async move {
            let Some(kind) = self.listing.kind_of(&set[0].key) else { return (set, None) };
            let api = api_of(self.client, &kind.resource, &set[0].key);
            let params = self.params_of(set[0]);
            let all = ListParams::default();
            // Not allowed, not served for this kind, or the server is away: one by one, with all that this knows.
            let deleted = self.in_time(answered(api.delete_collection(&params, &all))).await;
            (set, deleted.is_some_and(|deleted| deleted.is_ok()).then_some(&kind.resource))
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(CONCURRENT));
        while let Some((set, done)) = answers.next().await {
            let Some(resource) = done else {
                left.extend(set);
                continue;
            };
            for object in set {
                asked.deleted.push(object.key.clone());
                // Anything else without finalizers is gone once its collection is.
                if !object.finalizers.is_empty() || is(&object.key, "", "Pod") {
                    asked.pending.add(resource, &object.uid, &object.key);
                }
            }
        }
        (asked, left)
    }

    /// Nothing if the time is over before there is an answer.
    async fn in_time<T>(&self, ask: impl Future<Output = T>) -> Option<T> {
        // A request that has no time left is not even sent.
        if Instant::now() >= self.deadline {
            return None;
        }
        tokio::time::timeout_at(self.deadline.into(), ask).await.ok()
    }

    fn params_of(&self, object: &Object) -> DeleteParams {
        let params = DeleteParams::background();
        if self.hurry && is(&object.key, "", "Pod") { params.grace_period(GRACE) } else { params }
    }

    /// Whether it is still there afterwards.
    async fn delete_one(&self, resource: &ApiResource, object: &Object) -> Result<bool, kube::Error> {
        // Never another one of the same name.
        let uid = Preconditions { uid: Some(object.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(uid), ..self.params_of(object) };
        let api = api_of(self.client, resource, &object.key);
        match again(|| api.delete(&object.key.name, &params)).await {
            // An answer with a deletion time: it goes when its finalizers or its grace period allow.
            Ok(answer) => Ok(answer.left().is_some_and(|left| left.metadata.deletion_timestamp.is_some())),
            Err(error) => match code(&error) {
                Some(404) => Ok(false),
                // It is going already, which it says when asked; or it is another one of this name, which the next
                // look finds.
                Some(409) if is(&object.key, "", "Namespace") => {
                    let now = again(|| api.get_opt(&object.key.name)).await?;
                    let same = now.filter(|now| now.uid().as_ref() == Some(&object.uid));
                    Ok(same.is_some_and(|same| same.metadata.deletion_timestamp.is_some()))
                }
                Some(409) => Ok(false),
                _ => Err(error),
            },
        }
    }
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

/// Whether it makes no sense to go on with other objects.
#[must_use]
pub(crate) fn fatal(error: &kube::Error) -> bool {
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

/// Takes all finalizers off an object, so that it goes without what they stand for.
///
/// # Errors
/// What the API server says.
pub(crate) async fn force(
    client: &Client,
    resource: &ApiResource,
    uid: &str,
    key: &ObjectKey,
) -> Result<(), kube::Error> {
    let api = api_of(client, resource, key);
    // With its UID: never another one of the same name.
    let patch = Patch::Merge(json!({"metadata": {"uid": uid, "finalizers": null}}));
    let plain = PatchParams::default();
    match again(|| api.patch(&key.name, &plain, &patch)).await {
        Err(error) if code(&error) != Some(404) => Err(error),
        _ => Ok(()),
    }
}

/// Stops the API server from asking a dead webhook to convert custom resources.
///
/// # Errors
/// What the API server says.
pub(crate) async fn stop_conversion(
    client: &Client,
    resource: &ApiResource,
    object: &Object,
) -> Result<(), kube::Error> {
    let api = api_of(client, resource, &object.key);
    let none = json!({"metadata": {"uid": object.uid}, "spec": {"conversion": {"strategy": "None", "webhook": null}}});
    let (plain, patch) = (PatchParams::default(), Patch::Merge(&none));
    match again(|| api.patch(&object.key.name, &plain, &patch)).await {
        Err(error) if !matches!(code(&error), Some(404 | 409)) => Err(error),
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

    #[tokio::test]
    async fn pods_get_a_second_where_they_are_ours_and_nothing_is_deleted_in_the_foreground() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let (client, listing, going) = (Client::try_from(config).unwrap(), Listing::default(), HashSet::new());
        let asking =
            |hurry| Asking { client: &client, listing: &listing, going: &going, deadline: Instant::now(), hurry };
        let pod = object("Pod.v1 a/b", "1");
        assert_eq!(asking(true).params_of(&pod).grace_period_seconds, Some(1));
        assert_eq!(asking(false).params_of(&pod).grace_period_seconds, None);
        let map = asking(true).params_of(&object("ConfigMap.v1 a/b", "1"));
        assert_eq!(map.grace_period_seconds, None);
        assert!(matches!(map.propagation_policy, Some(kube::api::PropagationPolicy::Background)));
        // Its time is over: nothing is sent.
        assert!(asking(true).in_time(async {}).await.is_none());
    }
}
