//! Kubernetes objects as a file has them: every fault of the file is found before anything is sent.

use std::collections::BTreeSet;

use kit::{Cause, Error, Result, record::ObjectKey};
use serde::Deserialize;
use serde_json::Value;

/// A file of more bytes is no release.
pub const FILE_LIMIT: u64 = 64 << 20;
/// More objects than this in one file are a mistake.
const OBJECT_LIMIT: usize = 50_000;

/// An object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What and where it is. The namespace is empty where the file gives none.
    pub key: ObjectKey,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// Its API group, empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.key.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether it is of that group and kind, in any version.
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group() == group && self.key.kind == kind
    }

    /// Whether both are one object of a cluster: two versions of one kind are.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        let (one, two) = (&self.key, &other.key);
        let same = (&one.kind, &one.namespace, &one.name) == (&two.kind, &two.namespace, &two.name);
        same && self.group() == other.group()
    }

    /// A label of its metadata.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get("labels")?.get(name)?.as_str()
    }
}

/// Reads a stream of YAML documents; `name` stands for it in errors. Lists are taken apart, empty
/// documents are left out.
///
/// # Errors
/// [`Cause::Usage`] naming file, document and object: broken YAML, a document that is no object, one
/// without a name, one that is there twice.
pub fn parse(text: &str, name: &str) -> Result<Vec<Object>> {
    let wrong = |number: usize, why: String| Error::new(Cause::Usage, format!("{name}: document {number}: {why}"));
    let mut objects = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        // By way of a YAML value: it refuses a key that is there twice, which JSON's would overwrite.
        let value = serde_yaml_ng::Value::deserialize(document)
            .map_err(|error| wrong(number, format!("this is not YAML: {error}")))?;
        let value: Value = serde_json::to_value(value).map_err(|error| wrong(number, error.to_string()))?;
        flatten(value, &mut objects).map_err(|why| wrong(number, why))?;
        if objects.len() > OBJECT_LIMIT {
            return Err(wrong(number, format!("there are more than {OBJECT_LIMIT} objects")));
        }
    }
    let mut seen = BTreeSet::new();
    for Object { key, .. } in &objects {
        // Two versions of one kind are the same object.
        let group = key.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        if !seen.insert((group, &key.kind, &key.namespace, &key.name)) {
            return Err(Error::new(Cause::Usage, format!("{name}: {key} is there twice")));
        }
    }
    Ok(objects)
}

fn flatten(value: Value, objects: &mut Vec<Object>) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err("it has no apiVersion or no kind".into());
    }
    if let (Some(Value::Array(items)), true) = (value.get("items"), kind.ends_with("List")) {
        return items.iter().try_for_each(|item| flatten(item.clone(), objects));
    }
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let key = ObjectKey { api_version, kind, namespace: text(&metadata, "namespace"), name: text(&metadata, "name") };
    if key.name.is_empty() {
        return Err(format!("a {} without metadata.name", key.kind));
    }
    // They end up in the path of a request.
    for (what, part) in [("name", &key.name), ("namespace", &key.namespace), ("apiVersion", &key.api_version)] {
        if part.contains(['%', '?', '#', ' ', '\\']) || part.chars().any(char::is_control) || part.contains("..") {
            return Err(format!("{what} '{part}' cannot be one"));
        }
    }
    if key.name.contains('/') || key.namespace.contains('/') {
        return Err(format!("'{}/{}' cannot be a name", key.namespace, key.name));
    }
    objects.push(Object { key, value });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = parse(text, "r.yaml").unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        error.to_string()
    }

    #[test]
    fn reads_documents_lists_and_comments() {
        let text = "# only a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s, namespace: a}}\n";
        let keys: Vec<_> = parse(text, "r").unwrap().into_iter().map(|object| object.key.to_string()).collect();
        assert_eq!(keys, ["Namespace.v1 a", "Secret.v1 a/s"]);
        assert!(parse("", "r").unwrap().is_empty());
    }

    #[test]
    fn every_fault_is_named() {
        let config = |name: &str| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        assert!(error(&(config("a") + &config("a"))).contains("r.yaml: ConfigMap.v1 a is there twice"));
        assert!(
            error("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n").contains("a Pod without metadata.name")
        );
        assert!(error(&(config("a") + "---\nkind: Pod\n")).contains("document 2: it has no apiVersion"));
        assert!(
            error("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: x, a: y}\n").contains("duplicate")
        );
        assert!(error("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"a").contains("not YAML"));
        assert!(error("just text").contains("no apiVersion"));
        assert!(error("apiVersion: v1\nkind: Pod\nmetadata: {name: ../../x}\n").contains("cannot be"));
    }

    #[test]
    fn versions_of_one_object_are_one_object() {
        let object =
            |version: &str| format!("---\napiVersion: apps/{version}\nkind: Deployment\nmetadata: {{name: a}}\n");
        assert!(error(&(object("v1") + &object("v1beta1"))).contains("twice"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_can_stop_it(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = parse(&String::from_utf8_lossy(&bytes), "r");
        }
    }
}
