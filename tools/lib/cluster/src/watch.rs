//! Seeing a cluster change: many watches as one stream, and the end of one object.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::SelectAll};
use kit::{Cause, Error, Result, record::ObjectKey, ui::duration};
use kube::{
    Api, Client, ResourceExt,
    api::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Kind, cause_of, describe, explain::Trouble, within};

/// What is watched: a kind, in a namespace or everywhere.
#[derive(Debug, Clone)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for all, or for kinds that have none.
    pub namespace: String,
    /// A field selector, empty for all objects.
    pub fields: String,
}

/// What the watches have seen so far.
#[derive(Debug, Default)]
pub struct View {
    /// With the target whose watch saw it.
    objects: BTreeMap<Key, (usize, DynamicObject)>,
    /// Keys of a list that has begun and not ended.
    begun: BTreeMap<usize, BTreeSet<Key>>,
    listed: BTreeSet<usize>,
    /// The kind of each target: objects of a list do not say theirs.
    kinds: Vec<String>,
    /// The last fault of a watch, until it is over.
    pub fault: Option<String>,
    /// The fault of each target's watch, until it is over.
    faults: BTreeMap<usize, Trouble>,
}

/// Kind, namespace and name.
type Key = (String, String, String);

/// A change: which target's watch saw it.
pub type Change = (usize, Result<Event<DynamicObject>, watcher::Error>);

/// Begins to watch. Watches go on after a fault of the connection, with growing pauses.
pub fn watch(client: &Client, targets: &[Target]) -> (View, SelectAll<impl Stream<Item = Change> + Unpin + use<>>) {
    let streams = targets.iter().enumerate().map(|(index, target)| {
        let config = watcher::Config {
            field_selector: Some(target.fields.clone()).filter(|f| !f.is_empty()),
            ..Default::default()
        };
        let stream = watcher(target.kind.api(client, &target.namespace), config).default_backoff();
        stream.map(move |event| (index, event)).boxed()
    });
    let kinds = targets.iter().map(|target| target.kind.resource.kind.clone()).collect();
    (View { kinds, ..View::default() }, futures::stream::select_all(streams))
}

impl View {
    /// Takes a change in; says whether all lists are complete, so that the view can be judged.
    pub fn take(&mut self, (target, change): Change) -> bool {
        let kind = self.kinds.get(target).cloned().unwrap_or_default();
        let key = |object: &DynamicObject| (kind.clone(), object.namespace().unwrap_or_default(), object.name_any());
        let event = match change {
            Ok(event) => event,
            Err(error) => {
                let line = describe_watch(&error);
                // Who may not look is not allowed to by waiting.
                let trouble = Trouble::new(cause_of_watch(&error), format!("cannot watch {kind}: {line}"));
                let heals = trouble.cause != Cause::Auth;
                self.faults.insert(target, Trouble { heals, ..trouble });
                self.fault = Some(line);
                return self.complete();
            }
        };
        self.fault = None;
        self.faults.remove(&target);
        match event {
            Event::Apply(object) => drop(self.objects.insert(key(&object), (target, object))),
            Event::Delete(object) => drop(self.objects.remove(&key(&object))),
            Event::Init => drop(self.begun.insert(target, BTreeSet::new())),
            Event::InitApply(object) => {
                self.begun.entry(target).or_default().insert(key(&object));
                self.objects.insert(key(&object), (target, object));
            }
            Event::InitDone => {
                let now = self.begun.remove(&target).unwrap_or_default();
                self.objects.retain(|key, (seen_by, _)| *seen_by != target || now.contains(key));
                self.listed.insert(target);
            }
        }
        self.complete()
    }

    /// Whether every watch has listed what was there.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.listed.len() == self.kinds.len()
    }

    /// Why something has never been listed, as far as it is known; what does not heal comes first.
    #[must_use]
    pub fn unseen(&self) -> Option<&Trouble> {
        let never = self.faults.iter().filter(|(target, _)| !self.listed.contains(target));
        never.map(|(_, trouble)| trouble).min_by_key(|trouble| trouble.heals)
    }

    /// An object by kind, namespace and name.
    #[must_use]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&DynamicObject> {
        self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).map(|(_, object)| object)
    }

    /// All objects of a kind as their type; those that are not of it are left out.
    pub fn all<K: DeserializeOwned>(&self, kind: &str) -> Vec<K> {
        self.raw(kind).filter_map(|object| serde_json::from_value(object).ok()).collect()
    }

    fn raw(&self, kind: &str) -> impl Iterator<Item = Value> {
        let of_kind = self.objects.iter().filter(move |((found, _, _), _)| found == kind);
        of_kind.filter_map(|(_, (_, object))| serde_json::to_value(object).ok())
    }
}

fn describe_watch(error: &watcher::Error) -> String {
    use watcher::Error as E;
    match error {
        E::InitialListFailed(error) | E::WatchStartFailed(error) | E::WatchFailed(error) => describe(error),
        E::WatchError(status) => status.message.clone(),
        E::NoResourceVersion => error.to_string(),
    }
}

fn cause_of_watch(error: &watcher::Error) -> Cause {
    use watcher::Error as E;
    match error {
        E::InitialListFailed(error) | E::WatchStartFailed(error) | E::WatchFailed(error) => cause_of(error),
        E::WatchError(status) => cause_of(&kube::Error::Api(status.clone())),
        E::NoResourceVersion => Cause::Apiserver,
    }
}

/// Waits by watch until an object is gone, or another one has taken its name.
///
/// # Errors
/// [`Cause::NotAtBaseline`] naming it and its finalizers if it is still there after `limit`.
pub async fn gone(api: Api<DynamicObject>, key: &ObjectKey, limit: Duration) -> Result<()> {
    let last = Mutex::new(String::new());
    let say = |state: String| *last.lock().unwrap_or_else(PoisonError::into_inner) = state;
    let seen = async {
        let mut uid = None;
        let mut stream = std::pin::pin!(watcher::watch_object(api, &key.name).default_backoff());
        while let Some(change) = stream.next().await {
            match change {
                Ok(None) => return Ok(()),
                Ok(Some(object)) if uid.is_some() && uid != object.uid() => return Ok(()),
                Ok(Some(object)) => {
                    uid = object.uid();
                    say(format!("its finalizers: {}", object.finalizers().join(", ")));
                }
                Err(error) => say(describe_watch(&error)),
            }
        }
        Err(Error::new(Cause::Internal, format!("the watch of {key} ended")))
    };
    let late = || {
        let what = format!("{key} is still being deleted after {}", duration(limit));
        let state = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Error::new(Cause::NotAtBaseline, what).line(state).next("cargo xtask cleanup explain says what holds it")
    };
    within(limit, late, seen).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ApiResource;

    fn view() -> View {
        View { kinds: vec!["Pod".into(), "Pod".into()], ..View::default() }
    }

    fn pod(namespace: &str, name: &str) -> DynamicObject {
        let resource = ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("", "v1", "Pod"));
        DynamicObject::new(name, &resource).within(namespace)
    }

    #[test]
    fn a_new_list_forgets_what_is_gone() {
        let mut view = view();
        for event in
            [Event::Init, Event::InitApply(pod("a", "one")), Event::InitApply(pod("a", "two")), Event::InitDone]
        {
            assert!(!view.take((0, Ok(event))), "the other target has not listed yet");
        }
        view.take((1, Ok(Event::Init)));
        view.take((1, Ok(Event::InitApply(pod("b", "three")))));
        assert!(view.take((1, Ok(Event::InitDone))));
        view.take((0, Err(watcher::Error::NoResourceVersion)));
        assert!(view.fault.is_some());
        view.take((0, Ok(Event::Init)));
        assert!(view.get("Pod", "a", "one").is_some(), "until the new list is complete the old one holds");
        view.take((0, Ok(Event::InitDone)));
        assert!(view.get("Pod", "a", "one").is_none() && view.fault.is_none());
        assert!(view.get("Pod", "b", "three").is_some());
        view.take((1, Ok(Event::Delete(pod("b", "three")))));
        assert_eq!(view.all::<k8s_openapi::api::core::v1::Pod>("Pod").len(), 0);
    }

    #[test]
    fn what_was_never_listed_has_a_reason() {
        let refused = |code| {
            let status = kube::core::Status::failure("pods is forbidden", "x").with_code(code);
            Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        };
        let mut view = view();
        view.take((0, refused(503)));
        assert!(view.unseen().unwrap().heals);
        view.take((1, refused(403)));
        let trouble = view.unseen().unwrap();
        assert_eq!((trouble.cause, trouble.heals), (Cause::Auth, false));
        assert_eq!(trouble.line, "cannot watch Pod: pods is forbidden");
        view.take((1, Ok(Event::Init)));
        view.take((1, Ok(Event::InitDone)));
        view.take((1, refused(403)));
        assert!(view.unseen().unwrap().heals, "what was listed once is known");
    }
}
