//! What would change of an object, line by line, as `kubectl diff` shows it.

use serde_json::{Value, json};
use similar::TextDiff;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Fields that the API server keeps for itself.
const KEPT: [&str; 5] = ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"];

/// An object without what the API server keeps for itself.
pub(crate) fn content(object: &Value) -> Value {
    let mut value = object.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, value| !KEPT.contains(&field.as_str()) && !value.is_null());
    }
    value
}

/// The difference as a unified diff of YAML; empty if there is none. Values of Secrets are hidden.
pub(crate) fn unified(before: &Value, after: &Value) -> String {
    let (mut before, mut after) = (content(before), content(after));
    if before == after {
        return String::new();
    }
    if after["kind"] == "Secret" || before["kind"] == "Secret" {
        hide(&mut before, &mut after);
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        value => serde_yaml_ng::to_string(value).unwrap_or_default(),
    };
    let (before, after) = (text(&before), text(&after));
    TextDiff::from_lines(&before, &after).unified_diff().context_radius(CONTEXT).header("live", "planned").to_string()
}

/// Shows that a value of a Secret is there, and whether it changes, and nothing else of it.
fn hide(before: &mut Value, after: &mut Value) {
    for part in ["data", "stringData"] {
        let (was, is) = (before[part].clone(), after[part].clone());
        let covered = |own: &Value, other: &Value, word: &str| {
            let fields = own.as_object()?.iter().map(|(key, value)| {
                let same = other.get(key).is_none_or(|other| other == value);
                (key.clone(), json!(if same { "***".to_owned() } else { format!("*** ({word})") }))
            });
            Some(Value::Object(fields.collect()))
        };
        for (object, covered) in
            [(&mut *before, covered(&was, &is, "before")), (&mut *after, covered(&is, &was, "after"))]
        {
            match covered {
                Some(covered) => object[part] = covered,
                None => drop(object.as_object_mut().and_then(|object| object.remove(part))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_shown() {
        let map = |colour: &str, version: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": version},
                   "data": {"colour": colour, "size": "1"}})
        };
        assert_eq!(unified(&map("red", "1"), &map("red", "2")), "");
        let diff = unified(&map("blue", "1"), &map("red", "2"));
        assert!(diff.starts_with("--- live\n+++ planned\n@@ "), "{diff}");
        assert!(diff.contains("-  colour: blue\n+  colour: red\n   size: '1'"), "{diff}");
        assert!(!diff.contains("resourceVersion"), "{diff}");
        let new = unified(&Value::Null, &map("red", "1"));
        assert!(new.contains("+kind: ConfigMap") && !new.contains("\n-a"), "{new}");
    }

    #[test]
    fn secrets_stay_secret() {
        let secret =
            |a: &str| json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": a, "b": "aHVudGVyMg=="}});
        let diff = unified(&secret("aHVudGVyMQ=="), &secret("aHVudGVyMw=="));
        assert!(diff.contains("-  a: '*** (before)'\n+  a: '*** (after)'"), "{diff}");
        assert!(!diff.contains("aHVudG"), "{diff}");
        let new = unified(&Value::Null, &secret("aHVudGVyMw=="));
        assert!(new.contains("***") && !new.contains("aHVudG"), "{new}");
    }
}
