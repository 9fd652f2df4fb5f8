//! Waiting until objects are gone: one watch for each kind.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use kit::{Step, record::ObjectKey};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use crate::api;

/// Objects whose deletion was asked for and that are still there, by kind, with their UIDs.
#[derive(Debug, Default)]
pub(crate) struct Pending(HashMap<ApiResource, BTreeMap<String, ObjectKey>>);

impl Pending {
    /// One more.
    pub(crate) fn add(&mut self, resource: &ApiResource, uid: &str, key: &ObjectKey) {
        self.0.entry(resource.clone()).or_default().insert(uid.to_owned(), key.clone());
    }

    /// How many.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those for which `wanted` holds.
    pub(crate) fn take(&mut self, wanted: impl Fn(&ObjectKey) -> bool) -> Self {
        let mut taken = Self::default();
        for (resource, objects) in &mut self.0 {
            objects.retain(|uid, key| {
                let take = wanted(key);
                if take {
                    taken.add(resource, uid, key);
                }
                !take
            });
        }
        taken
    }

    /// With those of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        for (resource, objects) in other.0 {
            self.0.entry(resource).or_default().extend(objects);
        }
    }

    /// Each, with its kind and UID.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ApiResource, &String, &ObjectKey)> {
        self.0.iter().flat_map(|(resource, objects)| objects.iter().map(move |(uid, key)| (resource, uid, key)))
    }
}

/// Waits at most `limit` until all are gone; returns those that are not.
pub(crate) async fn wait(client: &Client, pending: Pending, limit: Duration, step: &Step) -> Pending {
    let total = pending.len();
    if total == 0 {
        return pending;
    }
    let deadline = tokio::time::Instant::now() + limit;
    let mut watches: FuturesUnordered<_> =
        pending.0.into_iter().map(|(resource, objects)| wait_kind(client, resource, objects, deadline)).collect();
    let mut left = Pending::default();
    let mut gone = 0;
    while let Some((resource, objects, went)) = watches.next().await {
        gone += went;
        step.set(format!("{gone} of {total} gone"));
        if !objects.is_empty() {
            left.0.insert(resource, objects);
        }
    }
    left
}

/// Watches one kind; returns what is left of it at the deadline, and how many went.
async fn wait_kind(
    client: &Client,
    resource: ApiResource,
    mut objects: BTreeMap<String, ObjectKey>,
    deadline: tokio::time::Instant,
) -> (ApiResource, BTreeMap<String, ObjectKey>, usize) {
    let total = objects.len();
    let watch = async {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => seen.clear(),
                Ok(Event::InitApply(object)) => drop(seen.insert(object.uid().unwrap_or_default())),
                Ok(Event::InitDone) => objects.retain(|uid, _| seen.contains(uid)),
                Ok(Event::Delete(object)) => drop(objects.remove(&object.uid().unwrap_or_default())),
                Ok(Event::Apply(_)) => {}
                // Nothing of a kind that is no longer served is left.
                Err(error) if kind_is_gone(&error) => objects.clear(),
                // The API server is away for a while: the watcher asks again.
                Err(_) => {}
            }
            if objects.is_empty() {
                return;
            }
        }
    };
    // What is left when the time is over is what the caller wants to know.
    let _ = tokio::time::timeout_at(deadline, watch).await;
    let went = total - objects.len();
    (resource, objects, went)
}

fn kind_is_gone(error: &watcher::Error) -> bool {
    use watcher::Error as E;
    match error {
        E::InitialListFailed(error) | E::WatchStartFailed(error) | E::WatchFailed(error) => {
            api::code(error) == Some(404)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_objects_are_taken_and_given_back() {
        let kind = |kind: &str| ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: kind.into(),
            plural: kind.to_lowercase(),
        };
        let key = |kind: &str, name: &str| ObjectKey {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: String::new(),
            name: name.into(),
        };
        let mut pending = Pending::default();
        pending.add(&kind("Pod"), "1", &key("Pod", "a"));
        pending.add(&kind("Pod"), "2", &key("Pod", "b"));
        pending.add(&kind("Namespace"), "3", &key("Namespace", "n"));
        let pods = pending.take(|key| key.kind == "Pod");
        assert_eq!((pods.len(), pending.len()), (2, 1));
        pending.extend(pods);
        assert_eq!(pending.iter().count(), 3);
        assert!(!pending.is_empty());
    }
}
