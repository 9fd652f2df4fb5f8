//! Putting back what was changed or removed, from the bodies of the baseline.

use std::{collections::BTreeMap, time::Duration};

use cluster::{FIELD_MANAGER, describe};
use futures::{StreamExt, stream};
use kit::{
    Result,
    record::{BaselineObject, ObjectKey},
};
use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    api::{CONCURRENT, again, code},
    list::{Kind, Listing},
    order::is,
    remove::api_of,
    rules::RULES,
    scene::Before,
    view::{is_secret, merge_patch, recreated, touched, view},
};

/// Somebody else may write at the same time; that often we look again.
const ATTEMPTS: usize = 3;
/// How long a definition may take until its kind is served.
const SERVED: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Put back.
    pub done: Vec<ObjectKey>,
    /// Not put back, and why.
    pub refused: Vec<(ObjectKey, String)>,
}

/// Puts back what is missing and what was changed, until `deadline`: namespaces and definitions first, then what others
/// need; several at a time.
///
/// # Errors
/// [`kit::Cause::Usage`] if the bodies cannot be read. That one object is refused is no error here.
pub(crate) async fn restore(
    client: &Client,
    before: &Before,
    listing: &Listing,
    wanted: &[ObjectKey],
    deadline: std::time::Instant,
) -> Result<Restored> {
    let mut ranks: BTreeMap<usize, Vec<(&BaselineObject, Option<Value>)>> = BTreeMap::new();
    for (object, body) in before.bodies(wanted)? {
        ranks.entry(rank(&object.key)).or_default().push((object, body));
    }
    let mut restored = Restored::default();
    for wanted in ranks.into_values() {
        let answers = stream::iter(wanted).map(|(object, body)| async move {
            let one = restore_one(client, listing, object, body);
            let late = || Err("the time of the stage is over".to_owned());
            (&object.key, tokio::time::timeout_at(deadline.into(), one).await.unwrap_or_else(|_| late()))
        });
        let mut answers = std::pin::pin!(answers.buffered(CONCURRENT));
        while let Some((key, answer)) = answers.next().await {
            match answer {
                Ok(()) => restored.done.push(key.clone()),
                Err(why) => restored.refused.push((key.clone(), why)),
            }
        }
    }
    Ok(restored)
}

/// What is needed by others comes first.
fn rank(key: &ObjectKey) -> usize {
    match key.kind.as_str() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        // Nobody may bind a role that is not there.
        "ServiceAccount" | "ConfigMap" | "Role" | "ClusterRole" => 2,
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => 4,
        _ => 3,
    }
}

/// Why an object of the baseline cannot be put back, if it cannot.
#[must_use]
pub(crate) fn impossible(object: &BaselineObject) -> Option<&'static str> {
    if RULES.keeps_body(&object.key) {
        None
    } else if is_secret(&object.key) {
        Some("the content of a Secret is never stored")
    } else {
        Some("writing its body would not bring it back")
    }
}

async fn restore_one(
    client: &Client,
    listing: &Listing,
    object: &BaselineObject,
    body: Option<Value>,
) -> Result<(), String> {
    if let Some(why) = impossible(object) {
        return Err(why.into());
    }
    let body = &body.ok_or("its body is not in the baseline's file, or not what its digest says")?;
    let kind = match listing.kind_of(&object.key) {
        Some(kind) => kind.clone(),
        // Its definition was put back a moment ago.
        None => served(client, &object.key).await.ok_or("the cluster does not serve its kind")?,
    };
    let api = api_of(client, &kind.resource, &object.key);
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let now = again(|| api.get_opt(&object.key.name)).await.map_err(|error| describe(&error))?;
        let written = match now {
            None => create(&api, &object.key, body).await,
            Some(now) => put_back(&api, &object.key, body, &now).await?,
        };
        match written {
            Ok(()) => return Ok(()),
            Err(error) if code(&error) == Some(409) => last = describe(&error),
            Err(error) => return Err(describe(&error)),
        }
    }
    Err(last)
}

async fn create(api: &kube::Api<DynamicObject>, key: &ObjectKey, body: &Value) -> Result<(), kube::Error> {
    let object: DynamicObject = serde_json::from_value(recreated(key, body)).map_err(kube::Error::SerdeError)?;
    let ours = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    again(|| api.create(&ours, &object)).await.map(drop)
}

/// Writes only what differs, on the object as it was read.
async fn put_back(
    api: &kube::Api<DynamicObject>,
    key: &ObjectKey,
    body: &Value,
    now: &DynamicObject,
) -> Result<Result<(), kube::Error>, String> {
    let now = serde_json::to_value(now).map_err(|error| error.to_string())?;
    let mut patch = merge_patch(&view(key, &now), body);
    if touched(&patch, 1).is_empty() {
        return Ok(Ok(()));
    }
    if touched(&patch, 1) == ["status"] {
        return Err("only its status differs, which nobody can write for its owner".into());
    }
    let version = json!({"resourceVersion": now["metadata"]["resourceVersion"], "uid": now["metadata"]["uid"]});
    match patch.get_mut("metadata").and_then(Value::as_object_mut) {
        Some(metadata) => metadata.extend(version.as_object().cloned().unwrap_or_default()),
        None => patch["metadata"] = whole_metadata(&patch, &version),
    }
    let ours = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    Ok(again(|| api.patch(&key.name, &ours, &patch)).await.map(drop))
}

/// A patch that takes away everything that is compared of the metadata says so with a null, which
/// would be the whole metadata.
fn whole_metadata(patch: &Value, version: &Value) -> Value {
    let mut metadata = version.clone();
    if patch.get("metadata").is_some_and(Value::is_null) {
        for name in ["labels", "annotations", "finalizers"] {
            metadata[name] = Value::Null;
        }
    }
    metadata
}

/// The kind of a key, as soon as the cluster serves it.
async fn served(client: &Client, key: &ObjectKey) -> Option<Kind> {
    if is(key, "", "Namespace") {
        return None;
    }
    let deadline = tokio::time::Instant::now() + SERVED;
    for delay in kit::retry::delays() {
        if let Some(kind) = crate::list::kind_now(client, key).await {
            return Some(kind);
        }
        if tokio::time::Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(delay).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_patch_takes_the_whole_metadata_away() {
        let version = json!({"resourceVersion": "7"});
        let cleared = whole_metadata(&json!({"metadata": null}), &version);
        assert_eq!(cleared, json!({"resourceVersion": "7", "labels": null, "annotations": null, "finalizers": null}));
        assert_eq!(whole_metadata(&json!({"data": {}}), &version), version);
    }

    #[test]
    fn secrets_and_pods_cannot_be_put_back() {
        let object = |kind: &str| BaselineObject {
            key: ObjectKey { api_version: "v1".into(), kind: kind.into(), namespace: "n".into(), name: "x".into() },
            uid: "1".into(),
            digest: String::new(),
            body: None,
        };
        assert!(impossible(&object("Secret")).unwrap().contains("never stored"));
        assert!(impossible(&object("Pod")).is_some());
        assert!(impossible(&object("ConfigMap")).is_none());
    }
}
