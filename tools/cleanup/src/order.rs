//! In which order objects go, so that nothing waits for something that has gone before it. Pure.

use std::collections::{BTreeMap, HashSet};

use kit::record::ObjectKey;
use serde_json::Value;

use crate::{
    finalizers,
    list::{Listing, Object},
    rules::{RULES, group_of},
};

/// What goes together, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Namespaces of tests with what is slow in them, and custom resources: while their controllers live.
    Tests,
    /// Webhook configurations and aggregated APIs: before their servers go.
    Admission,
    /// The component's namespaces, workloads and pods.
    Workloads,
    /// Everything else: RBAC, CRDs, configuration.
    Rest,
    /// Volumes, last: whoever provided them removes their data first.
    Volumes,
}

impl Stage {
    /// In words.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tests => "custom resources and test namespaces",
            Self::Admission => "webhooks and aggregated APIs",
            Self::Workloads => "workloads",
            Self::Rest => "roles, definitions, configuration",
            Self::Volumes => "volumes",
        }
    }
}

/// Where an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Deleted in this stage, in this batch of it.
    Deleted(Stage, usize),
    /// Goes with its namespace.
    WithNamespace,
    /// Stays: a rule protects it.
    Never,
}

/// What has to be known of the cluster to find an order.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Kinds of custom resources, and `*` for every kind of a group that another server serves.
    custom: HashSet<(String, String)>,
    /// Namespaces that were not there before.
    going: HashSet<String>,
    /// Those of them where the component's controllers live.
    homes: HashSet<String>,
    /// Whether a controller may still have to act on something that goes, or its webhook to answer for it.
    awaited: bool,
}

/// So many custom resources are asked to go before the namespace controller begins; their webhooks may have to answer for
/// each.
const SOON: usize = 500;

impl World {
    /// Reads it from what the cluster holds. `installed` are the namespaces that the component's
    /// install record names; `None` if there is no such record.
    #[must_use]
    pub(crate) fn new(listing: &Listing, added: &[&Object], installed: Option<&[String]>) -> Self {
        let mut world = Self::default();
        for object in &listing.objects {
            let spec = &object.view["spec"];
            match object.key.kind.as_str() {
                "CustomResourceDefinition" => {
                    world.custom.insert((text(&spec["group"]), text(&spec["names"]["kind"])));
                }
                "APIService" if spec["service"].is_object() => {
                    world.custom.insert((text(&spec["group"]), "*".into()));
                }
                _ => {}
            }
        }
        let goes = |object: &&&Object| is(&object.key, "", "Namespace") && !RULES.protected(&object.key);
        let namespaces = added.iter().filter(goes);
        world.going = namespaces.map(|object| object.key.name.clone()).collect();
        let mut homes: Vec<String> =
            added.iter().flat_map(|object| services_of(object)).map(|(home, _)| home).collect();
        match installed {
            Some(installed) => homes.extend(installed.iter().cloned()),
            // Who may act in the whole cluster is no test.
            None => homes.extend(added.iter().flat_map(|object| subjects_of(object))),
        }
        world.homes = homes.into_iter().filter(|home| world.going.contains(home)).collect();
        let by_others = |object: &&Object| object.finalizers.iter().any(|name| !of_kubernetes(name, &object.key));
        let custom = added.iter().filter(|object| world.is_custom(&object.key)).count();
        world.awaited = custom > SOON || added.iter().any(by_others);
        world
    }

    /// Whether objects of this kind belong to a controller that is no part of Kubernetes.
    #[must_use]
    pub(crate) fn is_custom(&self, key: &ObjectKey) -> bool {
        let has = |kind: &str| self.custom.contains(&(group_of(key).to_owned(), kind.to_owned()));
        has(&key.kind) || has("*")
    }

    /// Where an added object goes.
    #[must_use]
    pub(crate) fn way(&self, object: &Object) -> Way {
        let key = &object.key;
        if RULES.protected(key) {
            return Way::Never;
        }
        if is(key, "", "Namespace") {
            // The namespace controller lets some seconds pass before it begins: where no controller has to act any
            // more, theirs begins with the others. Their pods are asked for later all the same: they answer for webhooks.
            let later = self.awaited && self.homes.contains(&key.name);
            return Way::Deleted(if later { Stage::Workloads } else { Stage::Tests }, 0);
        }
        if self.is_custom(key) {
            return Way::Deleted(Stage::Tests, 0);
        }
        let goes = self.going.contains(&key.namespace);
        let test = goes && !self.homes.contains(&key.namespace);
        let stage = if test { Stage::Tests } else { Stage::Workloads };
        match (group_of(key), key.kind.as_str()) {
            // A namespace that is going makes no new pods, so they can go by themselves; elsewhere
            // who makes them goes first.
            ("", "Pod" | "PersistentVolumeClaim") if test => Way::Deleted(stage, 0),
            ("", "Pod" | "PersistentVolumeClaim") => Way::Deleted(stage, 2),
            _ if goes && object.finalizers.is_empty() => Way::WithNamespace,
            _ if goes => Way::Deleted(stage, usize::from(!test)),
            ("apps" | "batch", "ReplicaSet" | "Job") => Way::Deleted(Stage::Workloads, 1),
            ("apps" | "batch", _) | ("", "ReplicationController") => Way::Deleted(Stage::Workloads, 0),
            ("", "PersistentVolume") => Way::Deleted(Stage::Volumes, 0),
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Way::Deleted(Stage::Admission, 0),
            _ => Way::Deleted(Stage::Rest, 0),
        }
    }
}

/// What goes, stage by stage, batch by batch.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// What is deleted.
    pub stages: BTreeMap<Stage, BTreeMap<usize, Vec<&'a Object>>>,
    /// What goes with its namespace.
    pub with_namespace: Vec<&'a Object>,
    /// What stays.
    pub never: Vec<&'a Object>,
}

impl Plan<'_> {
    /// The namespaces that go, each with everything in it.
    #[must_use]
    pub(crate) fn namespaces(&self) -> HashSet<&str> {
        let all = self.stages.values().flat_map(BTreeMap::values).flatten();
        all.filter(|object| is(&object.key, "", "Namespace")).map(|object| object.key.name.as_str()).collect()
    }
}

/// Orders what was added.
#[must_use]
pub(crate) fn plan<'a>(added: &[&'a Object], world: &World) -> Plan<'a> {
    let mut plan = Plan::default();
    for &object in added {
        match world.way(object) {
            Way::Deleted(stage, batch) => {
                plan.stages.entry(stage).or_default().entry(batch).or_default().push(object);
            }
            Way::WithNamespace => plan.with_namespace.push(object),
            Way::Never => plan.never.push(object),
        }
    }
    plan
}

/// Namespace and name of the services that answer for a webhook configuration, an aggregated API or
/// the conversions of a definition.
#[must_use]
pub(crate) fn services_of(object: &Object) -> Vec<(String, String)> {
    let view = &object.view;
    let services: Vec<&Value> = match object.key.kind.as_str() {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            let webhooks = view["webhooks"].as_array();
            webhooks.into_iter().flatten().map(|webhook| &webhook["clientConfig"]["service"]).collect()
        }
        "APIService" => vec![&view["spec"]["service"]],
        "CustomResourceDefinition" => vec![&view["spec"]["conversion"]["webhook"]["clientConfig"]["service"]],
        _ => vec![],
    };
    let named = services.into_iter().filter(|service| service.is_object());
    named.map(|service| (text(&service["namespace"]), text(&service["name"]))).collect()
}

fn subjects_of(object: &Object) -> Vec<String> {
    if !is(&object.key, "rbac.authorization.k8s.io", "ClusterRoleBinding") {
        return vec![];
    }
    let subjects = object.view["subjects"].as_array();
    subjects.into_iter().flatten().map(|subject| text(&subject["namespace"])).collect()
}

/// Whether a key is of this group and kind.
#[must_use]
pub(crate) fn is(key: &ObjectKey, group: &str, kind: &str) -> bool {
    group_of(key) == group && key.kind == kind
}

/// Whether Kubernetes itself removes this finalizer, whatever goes of a component.
fn of_kubernetes(finalizer: &str, key: &ObjectKey) -> bool {
    let by = finalizers::known(finalizer, key).map(|known| known.controller.as_str());
    matches!(by, Some("kube-controller-manager" | "kube-apiserver"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;
    use serde_json::json;

    fn with(id: &str, view: Value) -> Object {
        Object { view, ..object(id, id) }
    }

    fn cluster() -> Vec<Object> {
        let service = |namespace: &str, name: &str| json!({"service": {"namespace": namespace, "name": name}});
        vec![
            with(
                "CustomResourceDefinition.apiextensions.k8s.io/v1 runs.tekton.dev",
                json!({"spec": {"group": "tekton.dev", "names": {"kind": "Run"}}}),
            ),
            with(
                "ValidatingWebhookConfiguration.admissionregistration.k8s.io/v1 hook",
                json!({"webhooks": [{"clientConfig": service("tekton-pipelines", "webhook")}]}),
            ),
            with(
                "APIService.apiregistration.k8s.io/v1 v1.other.dev",
                json!({"spec": {"group": "other.dev", "service": {"namespace": "o", "name": "s"}}}),
            ),
            with("ClusterRoleBinding.rbac.authorization.k8s.io/v1 b", json!({"subjects": [{"namespace": "bound"}]})),
            object("Namespace.v1 tekton-pipelines", "1"),
            object("Namespace.v1 test-1", "2"),
            object("Namespace.v1 bound", "3"),
            object("Node.v1 guest", "4"),
            object("Run.tekton.dev/v1 test-1/r", "5"),
            object("Thing.other.dev/v1 t", "6"),
            object("Pod.v1 test-1/p", "7"),
            object("Pod.v1 tekton-pipelines/p", "8"),
            object("ConfigMap.v1 test-1/c", "9"),
            object("Deployment.apps/v1 tekton-pipelines/d", "10"),
            object("Deployment.apps/v1 default/d", "11"),
            object("ReplicaSet.apps/v1 default/d-1", "12"),
            object("Pod.v1 default/d-1-x", "13"),
            object("PersistentVolume.v1 pv", "14"),
            object("ConfigMap.v1 default/c", "15"),
            Object { finalizers: vec!["x/y".into()], ..object("ConfigMap.v1 test-1/held", "16") },
        ]
    }

    fn ways(installed: Option<&[String]>) -> BTreeMap<String, Way> {
        let listing = Listing { objects: cluster(), ..Listing::default() };
        let added: Vec<&Object> = listing.objects.iter().collect();
        let world = World::new(&listing, &added, installed);
        added.iter().map(|object| (object.key.to_string(), world.way(object))).collect()
    }

    #[test]
    fn custom_resources_and_tests_go_while_their_controllers_live() {
        let ways = ways(None);
        for (id, way) in [
            ("Run.tekton.dev/v1 test-1/r", Way::Deleted(Stage::Tests, 0)),
            ("Thing.other.dev/v1 t", Way::Deleted(Stage::Tests, 0)),
            ("Namespace.v1 test-1", Way::Deleted(Stage::Tests, 0)),
            ("Pod.v1 test-1/p", Way::Deleted(Stage::Tests, 0)),
            ("ConfigMap.v1 test-1/c", Way::WithNamespace),
            ("ConfigMap.v1 test-1/held", Way::Deleted(Stage::Tests, 0)),
            ("ValidatingWebhookConfiguration.admissionregistration.k8s.io/v1 hook", Way::Deleted(Stage::Admission, 0)),
            ("Namespace.v1 tekton-pipelines", Way::Deleted(Stage::Workloads, 0)),
            ("Namespace.v1 bound", Way::Deleted(Stage::Workloads, 0)),
            ("Deployment.apps/v1 tekton-pipelines/d", Way::WithNamespace),
            ("Pod.v1 tekton-pipelines/p", Way::Deleted(Stage::Workloads, 2)),
            ("CustomResourceDefinition.apiextensions.k8s.io/v1 runs.tekton.dev", Way::Deleted(Stage::Rest, 0)),
            ("PersistentVolume.v1 pv", Way::Deleted(Stage::Volumes, 0)),
            ("Node.v1 guest", Way::Never),
        ] {
            assert_eq!(ways[id], way, "{id}");
        }
    }

    #[test]
    fn where_no_controller_has_to_act_their_namespaces_go_with_the_first() {
        let mut objects = cluster();
        objects.pop();
        let protection = vec!["kubernetes.io/pvc-protection".to_owned()];
        objects.push(Object { finalizers: protection, ..object("PersistentVolumeClaim.v1 test-1/c", "16") });
        let way = |objects: &[Object], id: &str| {
            let listing = Listing { objects: objects.to_vec(), ..Listing::default() };
            let added: Vec<&Object> = listing.objects.iter().collect();
            let object = added.iter().find(|object| object.key.to_string() == id).unwrap();
            World::new(&listing, &added, None).way(object)
        };
        assert_eq!(way(&objects, "Namespace.v1 tekton-pipelines"), Way::Deleted(Stage::Tests, 0));
        assert_eq!(way(&objects, "Pod.v1 tekton-pipelines/p"), Way::Deleted(Stage::Workloads, 2));
        objects[8].finalizers.push("chains.tekton.dev/pipelinerun".into());
        assert_eq!(way(&objects, "Namespace.v1 tekton-pipelines"), Way::Deleted(Stage::Workloads, 0));
    }

    #[test]
    fn outside_such_namespaces_the_maker_goes_before_what_it_makes() {
        let ways = ways(None);
        let batch = |id: &str| ways[id];
        assert_eq!(batch("Deployment.apps/v1 default/d"), Way::Deleted(Stage::Workloads, 0));
        assert_eq!(batch("ReplicaSet.apps/v1 default/d-1"), Way::Deleted(Stage::Workloads, 1));
        assert_eq!(batch("Pod.v1 default/d-1-x"), Way::Deleted(Stage::Workloads, 2));
        assert_eq!(batch("ConfigMap.v1 default/c"), Way::Deleted(Stage::Rest, 0));
    }

    #[test]
    fn what_is_in_a_protected_namespace_does_not_go_with_it() {
        let objects = vec![object("Namespace.v1 kube-system", "1"), object("Pod.v1 kube-system/dns", "2")];
        let listing = Listing { objects, ..Listing::default() };
        let added: Vec<&Object> = listing.objects.iter().collect();
        let world = World::new(&listing, &added, None);
        assert_eq!(world.way(added[0]), Way::Never);
        // Alone it counts as any other that was added.
        assert_eq!(world.way(added[1]), Way::Deleted(Stage::Workloads, 2));
        assert!(plan(&added, &world).namespaces().is_empty());
    }

    #[test]
    fn the_install_record_says_where_the_component_lives() {
        let installed = ["tekton-pipelines".to_owned(), "default".to_owned()];
        let ways = ways(Some(&installed));
        assert_eq!(ways["Namespace.v1 bound"], Way::Deleted(Stage::Tests, 0));
        assert_eq!(ways["Namespace.v1 tekton-pipelines"], Way::Deleted(Stage::Workloads, 0));
    }

    #[test]
    fn a_plan_has_the_stages_in_their_order() {
        let listing = Listing { objects: cluster(), ..Listing::default() };
        let added: Vec<&Object> = listing.objects.iter().collect();
        let plan = plan(&added, &World::new(&listing, &added, None));
        let stages: Vec<_> = plan.stages.keys().copied().collect();
        assert_eq!(stages, [Stage::Tests, Stage::Admission, Stage::Workloads, Stage::Rest, Stage::Volumes]);
        let deleted: usize = plan.stages.values().flat_map(BTreeMap::values).map(Vec::len).sum();
        assert_eq!(plan.namespaces(), ["bound", "tekton-pipelines", "test-1"].into());
        assert_eq!(deleted + plan.with_namespace.len() + plan.never.len(), added.len());
    }
}
