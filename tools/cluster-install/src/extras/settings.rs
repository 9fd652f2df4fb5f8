//! Values in the release's ConfigMaps: they are in place before anything that reads them starts. Cleanup
//! removes them with the component, or puts back what its baseline has.

use cluster::objects::Object;
use kit::{Cause, Error, Result, ci::Settings, record::Setting};
use serde_json::{Map, Value as Json};

use crate::release::Release;

/// A value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) map: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Value {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parts = text.split_once('=').and_then(|(place, value)| Some((place.split_once('.')?, value)));
        match parts {
            Some(((map, key), value)) if !map.is_empty() && !key.is_empty() => {
                Ok(Self { map: map.into(), key: key.into(), value: value.into() })
            }
            _ => Err(Error::new(Cause::Usage, format!("'{text}' does not say which value of which ConfigMap"))
                .next("write for instance feature-flags.enable-api-fields=alpha")),
        }
    }
}

/// Sets the values, and says what each was in the release.
///
/// # Errors
/// [`Cause::Usage`] for a ConfigMap that the release does not have, or has in several namespaces.
pub(crate) fn apply(release: &mut Release, wanted: &Settings) -> Result<Vec<Setting>> {
    let name = release.name();
    let mut set = Vec::new();
    for (map, values) in wanted {
        let known: Vec<String> = release
            .objects
            .iter()
            .filter(|object| object.is("", "ConfigMap"))
            .map(|object| object.key.name.clone())
            .collect();
        let mut found: Vec<&mut Object> =
            release.objects.iter_mut().filter(|object| object.is("", "ConfigMap") && object.key.name == *map).collect();
        let [object] = &mut found[..] else {
            let what = match found.len() {
                0 => format!("{name} has no ConfigMap '{map}', and a value of it is to be set"),
                several => format!("{name} has {several} ConfigMaps '{map}', and nobody says which is meant"),
            };
            return Err(Error::new(Cause::Usage, what).next(format!("its ConfigMaps: {}", known.join(", "))));
        };
        let shown = format!("{}/{map}", object.key.namespace);
        let Some(fields) = object.value.as_object_mut() else { continue };
        let data = fields.entry("data").or_insert(Json::Null);
        if !data.is_object() {
            *data = Json::Object(Map::new());
        }
        let Some(data) = data.as_object_mut() else { continue };
        for (key, value) in values {
            let before = data.insert(key.clone(), Json::String(value.clone()));
            let before = before.as_ref().and_then(Json::as_str).map(String::from);
            set.push(Setting { config_map: shown.clone(), key: key.clone(), value: value.clone(), before });
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        Release {
            component: "x".into(),
            version: "1".into(),
            file: "r.yaml".into(),
            digest: String::new(),
            objects: cluster::objects::parse(text, "r.yaml").unwrap(),
            images: None,
            inputs: Vec::new(),
            added: false,
        }
    }

    fn wanted(map: &str, key: &str, value: &str) -> Settings {
        Settings::from([(map.to_owned(), [(key.to_owned(), value.to_owned())].into())])
    }

    const FLAGS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: flags, namespace: n}, data: {api: stable}}";

    #[test]
    fn a_value_is_set_and_the_release_s_own_is_kept_in_mind() {
        let mut release = release(FLAGS);
        let set = apply(&mut release, &wanted("flags", "api", "alpha")).unwrap();
        assert_eq!((set[0].config_map.as_str(), set[0].before.as_deref()), ("n/flags", Some("stable")));
        assert_eq!(release.objects[0].value["data"]["api"], "alpha");
        assert_eq!(apply(&mut release, &wanted("flags", "new", "1")).unwrap()[0].before, None);
    }

    #[test]
    fn a_map_that_is_not_there_is_named_with_those_that_are() {
        let error = apply(&mut release(FLAGS), &wanted("feature-flags", "a", "b")).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("no ConfigMap 'feature-flags'"), "{error}");
        assert!(error.to_string().contains("its ConfigMaps: flags"), "{error}");
        let twice = format!("{FLAGS}\n---\n{}", FLAGS.replace("namespace: n", "namespace: m"));
        let error = apply(&mut release(&twice), &wanted("flags", "a", "b")).unwrap_err();
        assert!(error.to_string().contains("2 ConfigMaps"), "{error}");
    }

    #[test]
    fn values_on_the_command_line() {
        let value = Value::parse("feature-flags.enable-api-fields=a=b").unwrap();
        assert_eq!(
            (value.map.as_str(), value.key.as_str(), value.value.as_str()),
            ("feature-flags", "enable-api-fields", "a=b")
        );
        for wrong in ["", "a", "a=b", ".k=v", "m.=v"] {
            assert_eq!(Value::parse(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
    }
}
