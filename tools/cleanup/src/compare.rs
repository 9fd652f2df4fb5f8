//! Where a cluster differs from its baseline. Pure.

use std::collections::{HashMap, HashSet};

use kit::record::{BaselineObject, Difference, ObjectKey};

use crate::{
    list::Object,
    rules::{RULES, group_of},
    view::is_secret,
};

/// What names an object whatever version its kind is read in: group, kind, namespace, name.
pub(crate) type Name<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The name of a key.
#[must_use]
pub(crate) fn name(key: &ObjectKey) -> Name<'_> {
    (group_of(key), &key.kind, &key.namespace, &key.name)
}

/// Leaves out what the cluster made for an owner that is in the baseline (`known`). What it made for
/// an owner that is gone, or that is not in the baseline, counts: it has to go with that owner.
#[must_use]
pub(crate) fn without_derived(objects: &[Object], known: impl Fn(&ObjectKey) -> bool) -> Vec<&Object> {
    let by_uid: HashMap<&str, &Object> = objects.iter().map(|object| (object.uid.as_str(), object)).collect();
    let made_for_known = |object: &&Object| {
        object.owner.is_some()
            && RULES.derived(&object.key)
            && root_of(object, &by_uid).is_some_and(|root| known(&root.key))
    };
    objects.iter().filter(|object| !made_for_known(object)).collect()
}

/// The owner at the end of the chain; nothing if one of them is gone.
fn root_of<'a>(object: &'a Object, by_uid: &HashMap<&str, &'a Object>) -> Option<&'a Object> {
    let mut root = object;
    // A chain is as long as Pod, Job, CronJob; a hostile one may be a circle.
    for _ in 0..8 {
        match &root.owner {
            Some(owner) if RULES.derived(&root.key) => root = by_uid.get(owner.as_str())?,
            _ => return Some(root),
        }
    }
    None
}

/// Compares the objects of a baseline with those of now.
///
/// A Secret whose hash was made with a key that is lost is only looked for by its name.
#[must_use]
pub(crate) fn compare(baseline: &[BaselineObject], now: &[&Object]) -> Difference {
    let before: HashMap<_, _> = baseline.iter().map(|object| (name(&object.key), object)).collect();
    let after: HashSet<_> = now.iter().map(|object| name(&object.key)).collect();
    let mut difference = Difference::default();
    for object in now {
        match before.get(&name(&object.key)) {
            None => difference.added.push(object.key.clone()),
            Some(then) if differs(then, object) => difference.changed.push(object.key.clone()),
            Some(_) => {}
        }
    }
    for object in baseline {
        if !after.contains(&name(&object.key)) && !RULES.left_out_by_key(&object.key) {
            difference.missing.push(object.key.clone());
        }
    }
    difference.added.sort();
    difference.missing.sort();
    difference.changed.sort();
    difference
}

fn differs(then: &BaselineObject, now: &Object) -> bool {
    let comparable = !is_secret(&now.key) || !(then.digest.is_empty() || now.digest.is_empty());
    comparable && then.digest != now.digest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An object for tests: `Kind.group/version namespace/name`.
    pub(crate) fn object(id: &str, uid: &str) -> Object {
        let (kind, rest) = id.split_once('.').unwrap();
        let (api_version, name) = rest.split_once(' ').unwrap();
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let key = ObjectKey {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        Object { digest: "sha256:0".into(), view: json!({}), ..Object::named(key, uid) }
    }

    fn owned(id: &str, uid: &str, owner: &str) -> Object {
        Object { owner: Some(owner.into()), ..object(id, uid) }
    }

    pub(crate) fn baseline(objects: &[Object]) -> Vec<BaselineObject> {
        let kept = |object: &Object| BaselineObject {
            key: object.key.clone(),
            uid: object.uid.clone(),
            digest: object.digest.clone(),
            body: None::<Value>,
        };
        objects.iter().map(kept).collect()
    }

    fn all(before: &[BaselineObject], now: &[Object]) -> Difference {
        compare(before, &now.iter().collect::<Vec<_>>())
    }

    fn ids(keys: &[ObjectKey]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn added_missing_and_changed_are_told_apart() {
        let before = baseline(&[
            object("ConfigMap.v1 a/same", "1"),
            object("ConfigMap.v1 a/changed", "2"),
            object("ConfigMap.v1 a/missing", "3"),
        ]);
        let now = [
            object("ConfigMap.v1 a/same", "1"),
            Object { digest: "sha256:1".into(), ..object("ConfigMap.v1 a/changed", "2") },
            object("Namespace.v1 test", "4"),
        ];
        let difference = all(&before, &now);
        assert_eq!(ids(&difference.added), ["Namespace.v1 test"]);
        assert_eq!(ids(&difference.missing), ["ConfigMap.v1 a/missing"]);
        assert_eq!(ids(&difference.changed), ["ConfigMap.v1 a/changed"]);
        assert!(all(&before[..1], &now[..1]).is_empty());
    }

    #[test]
    fn an_object_made_again_with_the_same_content_is_no_difference() {
        let before = baseline(&[object("ServiceAccount.v1 a/default", "1")]);
        assert!(all(&before, &[object("ServiceAccount.v1 a/default", "2")]).is_empty());
    }

    #[test]
    fn another_version_of_the_kind_is_the_same_object() {
        let before = baseline(&[object("Task.tekton.dev/v1beta1 a/t", "1")]);
        assert!(all(&before, &[object("Task.tekton.dev/v1 a/t", "1")]).is_empty());
        assert_eq!(all(&before, &[object("Task.example.com/v1 a/t", "1")]).len(), 2);
    }

    #[test]
    fn a_secret_without_key_is_looked_for_by_name() {
        let mut before = baseline(&[object("Secret.v1 a/s", "1")]);
        before[0].digest = "hmac-sha256:1".into();
        let now = |digest: &str| [Object { digest: digest.into(), ..object("Secret.v1 a/s", "1") }];
        assert!(all(&before, &now("")).is_empty());
        assert!(all(&before, &now("hmac-sha256:1")).is_empty());
        assert_eq!(ids(&all(&before, &now("hmac-sha256:2")).changed), ["Secret.v1 a/s"]);
    }

    #[test]
    fn what_the_cluster_makes_for_an_owner_counts_with_the_owner() {
        let objects = || {
            vec![
                object("Deployment.apps/v1 a/d", "d"),
                owned("ReplicaSet.apps/v1 a/d-1", "r", "d"),
                owned("Pod.v1 a/d-1-x", "p", "r"),
                owned("Pod.v1 a/orphan", "o", "gone"),
                object("Pod.v1 a/bare", "b"),
                owned("ConfigMap.v1 a/owned", "c", "d"),
            ]
        };
        let objects = objects();
        let left = without_derived(&objects, |key| key.kind == "Deployment");
        let left: Vec<_> = left.iter().map(|object| object.key.name.as_str()).collect();
        assert_eq!(left, ["d", "orphan", "bare", "owned"]);
        assert_eq!(without_derived(&objects, |_| false).len(), 6);
    }

    #[test]
    fn a_circle_of_owners_ends() {
        let objects = vec![owned("ReplicaSet.apps/v1 a/x", "1", "2"), owned("ReplicaSet.apps/v1 a/y", "2", "1")];
        assert_eq!(without_derived(&objects, |_| true).len(), 2);
    }
}
