//! What kinds of objects a cluster knows: asked once, with two requests.

use std::collections::BTreeMap;

use kit::{Cause, Error, Result, record::ObjectKey};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::discovery::v2::APIVersionDiscovery,
    discovery::{Discovery, Scope},
};
use serde_json::Value;

use crate::{KubeContext, objects::Object};

/// How a kind is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
}

/// The kinds that a cluster serves, and those that a release is about to define.
#[derive(Debug, Clone, Default)]
pub struct Kinds(BTreeMap<(String, String), Kind>);

impl Kinds {
    /// Asks the cluster.
    ///
    /// # Errors
    /// As [`crate::cause_of`] says.
    pub async fn discover(client: &Client) -> Result<Self> {
        let what = || "cannot ask which kinds the cluster knows";
        // Both at once; the library's own way asks one after the other.
        let lists = tokio::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated());
        let groups = match lists {
            Ok((core, groups)) if !core.items.is_empty() => core.items.into_iter().chain(groups.items),
            // A server that has no aggregated discovery (before Kubernetes 1.27) answers in the older form.
            Ok(_) | Err(kube::Error::SerdeError(_)) => return Self::discover_each(client).await.kube(what),
            Err(error) => return Err(error).kube(what),
        };
        let mut kinds = Self::default();
        for group in groups {
            let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
            for version in group.versions {
                kinds.insert_all(&name, version);
            }
        }
        Ok(kinds)
    }

    /// One request for each group.
    async fn discover_each(client: &Client) -> Result<Self, kube::Error> {
        let discovery = Discovery::new(client.clone()).run().await?;
        let mut kinds = Self::default();
        for group in discovery.groups() {
            for version in group.versions() {
                for (resource, capabilities) in group.versioned_resources(version) {
                    kinds.insert(Kind { resource, namespaced: capabilities.scope == Scope::Namespaced });
                }
            }
        }
        Ok(kinds)
    }

    fn insert_all(&mut self, group: &str, version: APIVersionDiscovery) {
        let name = version.version.unwrap_or_default();
        for resource in version.resources {
            let (Some(kind), Some(plural)) = (resource.response_kind.and_then(|kind| kind.kind), resource.resource)
            else {
                continue;
            };
            let api_version = if group.is_empty() { name.clone() } else { format!("{group}/{name}") };
            let namespaced = resource.scope.as_deref() == Some("Namespaced");
            let resource = ApiResource { api_version, group: group.to_owned(), version: name.clone(), kind, plural };
            self.insert(Kind { resource, namespaced });
        }
    }

    /// Learns the kinds that custom resource definitions among `objects` define.
    pub fn learn(&mut self, objects: &[Object]) {
        for object in objects.iter().filter(|object| object.is("apiextensions.k8s.io", "CustomResourceDefinition")) {
            let spec = &object.value["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, kind, plural) =
                (text(&spec["group"]), text(&spec["names"]["kind"]), text(&spec["names"]["plural"]));
            for version in spec["versions"].as_array().into_iter().flatten() {
                let version = text(&version["name"]);
                let resource = ApiResource {
                    api_version: format!("{group}/{version}"),
                    group: group.clone(),
                    version,
                    kind: kind.clone(),
                    plural: plural.clone(),
                };
                self.insert(Kind { resource, namespaced: spec["scope"] == "Namespaced" });
            }
        }
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        self.0.insert((kind.resource.api_version.clone(), kind.resource.kind.clone()), kind);
    }

    /// How objects of that version and kind are reached.
    #[must_use]
    pub fn get(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        self.0.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.values()
    }

    /// Finds the kind of an object, and puts the object's namespace right: `default` where it needs
    /// one and has none, none where it takes none.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming `file` and the object, if the cluster does not know its kind.
    pub fn place(&self, object: &mut Object, file: &str) -> Result<Kind> {
        let ObjectKey { api_version, kind, .. } = &object.key;
        let Some(found) = self.get(api_version, kind) else {
            let what = format!("{file}: {}: the cluster knows no {kind} of {api_version}", object.key);
            let versions: Vec<&str> =
                self.iter().filter(|k| k.resource.kind == *kind).map(|k| k.resource.api_version.as_str()).collect();
            let error = Error::new(Cause::Usage, what);
            return Err(match &versions[..] {
                [] => error.next("add the definition of that kind to the release, or install what brings it first"),
                versions => error.next(format!("it knows {kind} of {}", versions.join(", "))),
            });
        };
        let namespace = match (found.namespaced, object.key.namespace.as_str()) {
            (true, "") => "default".to_owned(),
            (true, namespace) => namespace.to_owned(),
            (false, _) => String::new(),
        };
        object.key.namespace.clone_from(&namespace);
        if let Some(metadata) = object.value.get_mut("metadata").and_then(Value::as_object_mut) {
            if namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".into(), namespace.into());
            }
        }
        Ok(found.clone())
    }
}

impl Kind {
    /// The API for objects of this kind in `namespace`; empty for those that lie in none, or for all namespaces.
    #[must_use]
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::parse;

    const RELEASE: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.greeter.dev}
spec:
  group: greeter.dev
  scope: Namespaced
  names: {kind: Greeting, plural: greetings}
  versions: [{name: v1}, {name: v1alpha1}]
---
apiVersion: greeter.dev/v1
kind: Greeting
metadata: {name: hello}
";

    #[test]
    fn a_release_may_use_the_kinds_that_it_defines() {
        let mut objects = parse(RELEASE, "r.yaml").unwrap();
        let mut kinds = Kinds::default();
        let error = kinds.place(&mut objects[1], "r.yaml").unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("r.yaml: Greeting.greeter.dev/v1 hello: the cluster knows no"), "{error}");
        kinds.learn(&objects);
        let kind = kinds.place(&mut objects[1], "r.yaml").unwrap();
        assert_eq!((kind.resource.plural.as_str(), kind.namespaced), ("greetings", true));
        assert_eq!(objects[1].key.namespace, "default");
        assert_eq!(objects[1].value["metadata"]["namespace"], "default");
    }

    #[test]
    fn an_unknown_version_says_which_are_known() {
        let mut objects = parse(&RELEASE.replace("greeter.dev/v1\n", "greeter.dev/v2\n"), "r.yaml").unwrap();
        let mut kinds = Kinds::default();
        kinds.learn(&objects);
        let error = kinds.place(&mut objects[1], "r.yaml").unwrap_err();
        assert!(error.to_string().contains("it knows Greeting of greeter.dev/v1, greeter.dev/v1alpha1"), "{error}");
    }
}
