//! What is compared of an object, its digest, and the smallest change that puts it back. Pure.

use kit::{digest, record::ObjectKey};
use serde_json::{Map, Value, json};

use crate::{
    rules::{RULES, group_of},
    secret::{self, Key},
};

/// What is compared of an object: everything but what the API server keeps for itself and what the
/// rules ignore. Of its metadata: labels, annotations, finalizers.
#[must_use]
pub(crate) fn view(key: &ObjectKey, object: &Value) -> Value {
    let mut view = object.clone();
    if let Some(fields) = view.as_object_mut() {
        let metadata = fields.remove("metadata").unwrap_or_default();
        fields.insert("metadata".into(), compared_metadata(&metadata));
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    RULES.strip(key, &mut view);
    if let Some(fields) = view.as_object_mut() {
        // Without what was ignored there may be nothing left, which is the same as not being there.
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|_, value| !is_empty(value));
        }
        fields.retain(|_, value| !is_empty(value));
    }
    view
}

fn compared_metadata(metadata: &Value) -> Value {
    let kept = ["labels", "annotations", "finalizers"];
    kept.iter().filter_map(|name| Some(((*name).to_owned(), metadata.get(name)?.clone()))).collect::<Map<_, _>>().into()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        _ => false,
    }
}

/// Digest of a view: keyed for Secrets, whose content must not be guessed from it; plain otherwise.
/// Without a key a Secret's digest says nothing, and is empty.
#[must_use]
pub(crate) fn fingerprint(key: &ObjectKey, view: &Value, secret_key: Option<&Key>) -> String {
    let mut bytes = Vec::new();
    canonical(view, &mut bytes);
    match (is_secret(key), secret_key) {
        (false, _) => digest::sha256(&bytes),
        (true, Some(secret_key)) => format!("hmac-sha256:{}", digest::to_hex(&secret::keyed(secret_key, &bytes))),
        (true, None) => String::new(),
    }
}

/// What other parts of the tool look at in a view. The rest of it, of most kinds all, need not stay in memory
/// once its digest is known.
const ESSENTIAL: &[(&str, &str, &[&str])] = &[
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        &["/spec/group", "/spec/names/kind", "/spec/conversion/webhook/clientConfig/service"],
    ),
    ("apiregistration.k8s.io", "APIService", &["/spec/group", "/spec/service"]),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", &["/webhooks"]),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", &["/webhooks"]),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &["/subjects"]),
    ("discovery.k8s.io", "EndpointSlice", &["/metadata/labels", "/endpoints"]),
    ("", "PersistentVolume", &["/spec/persistentVolumeReclaimPolicy", "/spec/claimRef"]),
];

/// The part of a view that is looked at later.
#[must_use]
pub(crate) fn essential(key: &ObjectKey, view: &Value) -> Value {
    let of_kind = |(group, kind, _): &&(&str, &str, &[&str])| *group == group_of(key) && *kind == key.kind;
    let Some((.., paths)) = ESSENTIAL.iter().find(of_kind) else { return Value::Null };
    let mut kept = json!({});
    for path in *paths {
        let Some(value) = view.pointer(path) else { continue };
        let mut place = &mut kept;
        for name in path.split('/').skip(1) {
            place = &mut place[name];
        }
        *place = value.clone();
    }
    kept
}

/// Whether it is a Secret of the core group.
#[must_use]
pub(crate) fn is_secret(key: &ObjectKey) -> bool {
    key.api_version == "v1" && key.kind == "Secret"
}

/// JSON with the fields in the order of their names, whatever the order in memory.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.keys().collect();
            names.sort_unstable();
            out.push(b'{');
            for name in names {
                out.extend(Value::from(name.as_str()).to_string().into_bytes());
                out.push(b':');
                canonical(&fields[name], out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for element in elements {
                canonical(element, out);
                out.push(b',');
            }
            out.push(b']');
        }
        scalar => out.extend(scalar.to_string().into_bytes()),
    }
}

/// The JSON merge patch (RFC 7386) that makes `to` of `from`.
#[must_use]
pub(crate) fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Some(before), Some(after)) = (from.as_object(), to.as_object()) else { return to.clone() };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => {}
            Some(other) if other.is_object() && value.is_object() => {
                patch.insert(name.clone(), merge_patch(other, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// The names of what a merge patch touches: `data.flag`, at most `depth` names each.
#[must_use]
pub(crate) fn touched(patch: &Value, depth: usize) -> Vec<String> {
    let Some(fields) = patch.as_object().filter(|fields| depth > 0 && !fields.is_empty()) else { return vec![] };
    let below = |(name, value): (&String, &Value)| {
        let inner = touched(value, depth - 1);
        if inner.is_empty() { vec![name.clone()] } else { inner.iter().map(|rest| format!("{name}.{rest}")).collect() }
    };
    fields.iter().flat_map(below).collect()
}

/// The whole object that a body stands for, to create it again.
#[must_use]
pub(crate) fn recreated(key: &ObjectKey, body: &Value) -> Value {
    let mut object = body.clone();
    let Some(fields) = object.as_object_mut() else { return json!({}) };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    metadata["name"] = json!(key.name);
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(key.namespace);
    }
    fields.remove("status");
    fields.insert("apiVersion".into(), json!(key.api_version));
    fields.insert("kind".into(), json!(key.kind));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str) -> ObjectKey {
        ObjectKey { api_version: "v1".into(), kind: "ConfigMap".into(), namespace: "n".into(), name: name.into() }
    }

    fn secret() -> ObjectKey {
        ObjectKey { kind: "Secret".into(), ..map("s") }
    }

    #[test]
    fn bookkeeping_of_the_server_is_not_compared() {
        let bare = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        let lived = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "a", "uid": "1", "resourceVersion": "77", "generation": 3, "managedFields": [{}],
                "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"uid": "2"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "labels": {},
            },
            "data": {"k": "v"}, "status": {"phase": "Good"},
        });
        assert_eq!(view(&map("a"), &bare), json!({"data": {"k": "v"}}));
        assert_eq!(view(&map("a"), &lived), view(&map("a"), &bare));
    }

    #[test]
    fn labels_annotations_and_finalizers_are_compared() {
        for part in [json!({"labels": {"a": "b"}}), json!({"annotations": {"a": "b"}}), json!({"finalizers": ["f"]})] {
            let key = map("a");
            let plain = view(&key, &json!({"metadata": {}}));
            assert_ne!(view(&key, &json!({"metadata": part})), plain);
        }
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"data":{"a":"1","b":"2"},"immutable":true}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"immutable":true,"data":{"b":"2","a":"1"}}"#).unwrap();
        let digest = |value| fingerprint(&map("a"), value, None);
        assert_eq!(digest(&one), digest(&two));
        assert!(digest(&one).starts_with("sha256:"));
        assert_ne!(digest(&json!({"a": ["b", "c"]})), digest(&json!({"a": ["bc"]})));
    }

    #[test]
    fn a_secrets_digest_needs_the_key() {
        let (one, two) = (Key::from([1; 32]), Key::from([2; 32]));
        let view = json!({"data": {"password": "c2VjcmV0"}});
        let digest = |key| fingerprint(&secret(), &view, key);
        assert!(digest(Some(&one)).starts_with("hmac-sha256:"));
        assert_ne!(digest(Some(&one)), digest(Some(&two)));
        assert_eq!(digest(None), "");
        let changed = json!({"data": {"password": "b3RoZXI="}});
        assert_ne!(digest(Some(&one)), fingerprint(&secret(), &changed, Some(&one)));
    }

    #[test]
    fn only_what_is_looked_at_stays_in_memory() {
        let key = |api_version: &str, kind: &str| ObjectKey {
            api_version: api_version.into(),
            kind: kind.into(),
            ..map("x")
        };
        let definition =
            json!({"spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "versions": [{"schema": {}}]}});
        let kept = essential(&key("apiextensions.k8s.io/v1", "CustomResourceDefinition"), &definition);
        assert_eq!(kept, json!({"spec": {"group": "g", "names": {"kind": "K"}}}));
        assert!(essential(&key("v1", "ConfigMap"), &json!({"data": {}})).is_null());
        assert!(essential(&key("example.com/v1", "PersistentVolume"), &json!({"spec": {"claimRef": {}}})).is_null());
    }

    #[test]
    fn a_patch_touches_only_what_differs() {
        let from = json!({"data": {"flag": "alpha", "new": "x", "same": "s"}, "metadata": {"labels": {"a": "b"}}});
        let to = json!({"data": {"flag": "stable", "same": "s"}, "list": [1, 2]});
        let patch = merge_patch(&from, &to);
        assert_eq!(patch, json!({"data": {"flag": "stable", "new": null}, "metadata": null, "list": [1, 2]}));
        let mut names = touched(&patch, 3);
        names.sort();
        assert_eq!(names, ["data.flag", "data.new", "list", "metadata"]);
        assert_eq!(merge_patch(&to, &to), json!({}));
    }

    #[test]
    fn an_object_is_made_again_from_its_body() {
        let body = view(&map("a"), &json!({"metadata": {"labels": {"x": "y"}, "uid": "1"}, "data": {"k": "v"}}));
        assert_eq!(
            recreated(&map("a"), &body),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}},
                "data": {"k": "v"},
            })
        );
    }
}
